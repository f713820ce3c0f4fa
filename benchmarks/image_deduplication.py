"""Time of a training step of `hccm` with each image of a batch encoded once.

    python benchmarks/image_deduplication.py --json=FILE

Batch 64, histories of 100 images, every slot taken, 6 slots for each unique image, maps
7x7x96 (MobileNetV3-Small at 224 pixels), default widths, `LazyAdam`. Without
deduplication each slot brings a map of its own. Both arms take the same step on the
same images; their predictions before training are checked to be equal. The maps are
ready in memory: `training_step.py` times the pipeline that gathers them.
"""

import numpy as np
import tensorflow as tf
from absl import app, flags
from stores import MAP_SHAPE
from timing import alternate, ratio, report, summary, training_step

from hccm_tf.data.deduplication import deduplicate
from hccm_tf.data.feature import Feature
from hccm_tf.data.feature_kinds import RESERVED
from hccm_tf.data.schema import Schema
from hccm_tf.models import build_model
from hccm_tf.optimizers import LazyAdam

BATCH_SIZE, MAX_HISTORY = 64, 100
ITEMS, CATEGORIES, BATCHES = 10_000, 50, 4
SCHEMA = Schema(
    (
        Feature("user_id", "integer", size=ITEMS),
        Feature("item_id", "integer", size=ITEMS, candidate=True),
        Feature("category", "integer", size=CATEGORIES, candidate=True),
        Feature("history_item_id", "sequence", shares="item_id"),
        Feature("history_category", "sequence", shares="category"),
    )
)


def make_batch(rng, deduplicated):
    """`(inputs, label)`; image `row` has map `maps[row]`, 0 is no image."""
    slots = BATCH_SIZE * (MAX_HISTORY + 1)
    images = slots // FLAGS.slots_per_image
    maps = np.abs(rng.normal(size=(images + 1, *MAP_SHAPE))).astype(np.float16)
    maps[0] = 0
    category = rng.integers(RESERVED, RESERVED + CATEGORIES, images + 1).astype(
        np.int32
    )
    rows = rng.permutation(np.resize(np.arange(1, images + 1), slots))
    item, history = rows[:BATCH_SIZE, None], rows[BATCH_SIZE:].reshape(BATCH_SIZE, -1)
    if deduplicated:
        rows, image_category, candidate_image, history_image = deduplicate(
            item, category[item], history, category[history]
        )
    else:
        rows = np.concatenate([[0], rows])
        image_category = np.where(rows > 0, category[rows], 0)
        candidate_image = np.arange(1, BATCH_SIZE + 1)[:, None]
        history_image = np.arange(BATCH_SIZE + 1, slots + 1).reshape(BATCH_SIZE, -1)
    inputs = {
        "user_id": rng.integers(1, ITEMS, BATCH_SIZE),
        "item_id": item,
        "category": category[item],
        "history_item_id": history,
        "history_category": category[history],
        "image_category": image_category,
        "candidate_image": candidate_image,
        "history_image": history_image,
    }
    inputs = {name: tf.cast(value, tf.int32) for name, value in inputs.items()}
    inputs["image_map"] = tf.constant(maps[np.asarray(rows)])
    inputs["candidate_mask"] = tf.ones((BATCH_SIZE, 1), tf.bool)
    return inputs, tf.constant(rng.integers(0, 2, (BATCH_SIZE, 1, 1)), tf.float32)


def main(argv):
    del argv
    model = build_model("hccm", SCHEMA, feature_map_shape=MAP_SHAPE, id_dropout=0)
    model.compile(LazyAdam(1e-3), "binary_crossentropy", jit_compile=False)
    batches = {
        arm: [
            make_batch(np.random.default_rng(seed), with_it) for seed in range(BATCHES)
        ]
        for arm, with_it in (("without", False), ("with", True))
    }
    without, with_it = (model.predict_on_batch(arm[0][0]) for arm in batches.values())
    np.testing.assert_allclose(with_it, without, rtol=1e-5, atol=1e-6)
    times = alternate(
        {arm: training_step(model, arms) for arm, arms in batches.items()}, FLAGS.rounds
    )
    table = summary(times)
    table["maps"] = {a: len(b[0][0]["image_map"]) for a, b in batches.items()}
    report(
        {"training step of hccm, deduplication": table},
        {"without / with": ratio(times, "without", "with")},
        FLAGS.json,
    )


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_integer("slots_per_image", 6, "Slots of an image.", lower_bound=1)
    flags.DEFINE_integer("rounds", 15, "Number of alternations.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
