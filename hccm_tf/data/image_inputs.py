"""The images of a batch, as a model takes them."""

import tensorflow as tf

from hccm_tf.data.deduplication import deduplicate
from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.schema import to_padded

SIDES = ("candidate", "history")


def image_inputs(schema, raw, inputs, images, sides=SIDES, tell_category=None):
    """The image tensors of a batch; see `deduplicate`.

    Args:
        schema: `hccm_tf.data.schema.Schema`.
        raw: dict of the batch's raw columns.
        inputs: dict of `schema.index_all`.
        images: `hccm_tf.data.image_store.ImageStore`.
        sides: of `SIDES`, whose images the model takes; others are not read.
        tell_category: as of `hccm_tf.data.dataset.Batches`.
    """
    # Row numbers and categories of no slot at all.
    candidate = tf.zeros([0], tf.int64), tf.zeros([0], tf.int32)
    history = tf.zeros([0, 0], tf.int64), tf.zeros([0, 0], tf.int32)
    if "candidate" in sides:
        rows = images.find(raw["image"])
        candidate = rows, inputs.get("category", tf.ones_like(rows, tf.int32))
    if "history" in sides:
        keys = schema.truncate(raw[HISTORY_IMAGE])
        rows = to_padded(keys.with_flat_values(images.find(keys.flat_values)))
        category = inputs.get("history_category", tf.ones_like(rows, tf.int32))
        history = rows, category
    rows, category, candidate_image, history_image = deduplicate(*candidate, *history)
    if tell_category is not None:
        category = tell_category(rows, category)
    numbers = {"candidate_image": candidate_image, "history_image": history_image}
    return {
        "image_map": images.gather(rows),
        "image_category": category,
        **{f"{side}_image": numbers[f"{side}_image"] for side in sides},
    }
