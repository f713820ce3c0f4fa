"""The images of a batch, as a model takes them."""

import tensorflow as tf

from hccm_tf.data.deduplication import deduplicate
from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.schema import pad_candidates

SIDES = ("candidate", "history")


def image_inputs(batches, raw, inputs, num_candidates, width_step):
    """The image tensors of a batch; see `deduplicate`.

    Args:
        batches: `hccm_tf.data.dataset.Batches`; the images of sides that it does not
            name are not read.
        raw: dict of the batch's raw columns.
        inputs: dict of `Schema.index_all`.
        num_candidates: as of `Schema.index_all`.
        width_step: likewise.
    """
    schema, images, sides = batches.schema, batches.images, batches.sides
    # Row numbers and categories of no slot at all.
    candidate = tf.zeros([0, 0], tf.int64), tf.zeros([0, 0], tf.int32)
    history = tf.zeros([0, 0], tf.int64), tf.zeros([0, 0], tf.int32)
    if "candidate" in sides:
        keys = raw["image"]
        rows = keys.with_flat_values(images.find(keys.flat_values))
        rows = pad_candidates(rows, num_candidates)
        candidate = rows, inputs.get("category", tf.ones_like(rows, tf.int32))
    if "history" in sides:
        keys = schema.truncate(raw[HISTORY_IMAGE])
        rows = keys.with_flat_values(images.find(keys.flat_values))
        rows = schema.pad_history(rows, width_step)
        category = inputs.get("history_category", tf.ones_like(rows, tf.int32))
        history = rows, category
    rows, category, candidate_image, history_image = deduplicate(*candidate, *history)
    if batches.tell_category is not None:
        category = batches.tell_category(rows, category)
    numbers = {"candidate_image": candidate_image, "history_image": history_image}
    return {
        "image_map": images.gather(rows),
        "image_category": category,
        **{f"{side}_image": numbers[f"{side}_image"] for side in sides},
    }
