"""Time of a training step of `cscnn` on pixels, by which photos a batch holds.

    python benchmarks/raw_pixels.py --json=FILE

The demo shop with 2,000 photos of 128x128 and 60,000 impressions, the settings of
`configs/cscnn_demo.flags`, batch 512. Each arm decodes and encodes the candidates'
photos of its batches:
- every slot: a photo for each impression;
- deduplicated: each photo once for a batch;
- grouped: the same, and impressions of a photo stand in the same batch.
For each of them the input pipeline alone, from the TFRecords and JPEGs to a batch;
training steps on batches in memory; and both together, as `train_main.py` runs them.
The first two arms' predictions are checked to be equal.
"""

import pathlib
import tempfile
from unittest import mock

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import app, flags
from timing import batch_seconds, fit_seconds, ratio, report, seconds, summary
from timing import training_step as step_of

from hccm_tf.data import image_inputs
from hccm_tf.data.dataset import Batches
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.image_folder import ImageFolder
from hccm_tf.data.schema import Schema
from hccm_tf.models import build_model
from hccm_tf.optimizers import LazyAdam
from hccm_tf.preparation.examples.build import build_examples
from tfrecords_tools.demo.shop import make_demo

BATCH_SIZE, IMAGE_SIZE = 512, 48
ITEMS, USERS, IMPRESSIONS = 2_000, 500, 60_000
OPTIONS = {"image_embedding_dim": 64, "cnn_layer": "expanded_conv_4_add"}
ARMS = ("every slot", "deduplicated", "grouped")


def every_slot(item_rows, item_category, history_rows, history_category):
    """In the place of `deduplicate`, for the candidates."""
    there = tf.cast(item_rows > 0, tf.int32)
    return (
        tf.pad(item_rows[:, 0], [[1, 0]]),
        tf.pad((item_category * there)[:, 0], [[1, 0]]),
        tf.range(1, tf.size(item_rows) + 1)[:, None] * there,
        tf.zeros(tf.shape(history_rows), tf.int32),
    )


def make_dataset(data, split, schema, store, arm, epoch=0):
    """Batches of one arm, `(inputs, label)`."""
    batches = Batches(
        data,
        schema,
        BATCH_SIZE,
        store,
        sides=("candidate",),
        group_by_item=arm == "grouped",
    )
    deduplicate = every_slot if arm == "every slot" else image_inputs.deduplicate
    with mock.patch.object(image_inputs, "deduplicate", deduplicate):
        dataset = batches.dataset(split, epoch)
    return dataset.map(lambda inputs, label, *_: (inputs, label))


def measure(folder):
    """`(times, photos)`: seconds of each arm's parts, and photos of its batches."""
    make_demo(folder / "shop", ITEMS, USERS, IMPRESSIONS, seed=0)
    items, log = (
        pd.read_csv(folder / "shop" / f"{name}.csv")
        for name in ("items", "impressions")
    )
    build_examples(items, log, folder / "data", max_history=50)
    schema = Schema.load(folder / "data")
    images = DataFolder(folder / "data").catalogue()["image"].unique().to_pylist()
    store = ImageFolder.open(folder / "shop" / "images", images, IMAGE_SIZE)
    model = build_model("cscnn", schema, feature_map_shape=store.shape, **OPTIONS)
    model.compile(LazyAdam(1e-3), "binary_crossentropy", jit_compile=False)
    datasets = {
        arm: make_dataset(folder / "data", "train", schema, store, arm).repeat()
        for arm in ARMS
    }
    batches = {arm: list(datasets[arm].take(FLAGS.batches)) for arm in ARMS}
    photos = {
        arm: np.mean([np.count_nonzero(b["image_category"]) for b, _ in batches[arm]])
        for arm in ARMS
    }
    rounds = []
    for number in range(FLAGS.rounds + 1):
        row = {}
        for arm in ARMS:
            row[f"{arm}, pipeline"] = batch_seconds(datasets[arm], FLAGS.batches)
            step = step_of(model, batches[arm])
            steps = seconds(lambda s=step: [s() for _ in range(FLAGS.batches)])
            row[f"{arm}, step"] = steps / FLAGS.batches
            row[f"{arm}, fit"] = fit_seconds(model, datasets[arm], FLAGS.batches)
        # The first round compiles.
        rounds += [row] * bool(number)
    # Behind the training, because an untrained CNN gives zeros.
    first = [
        next(iter(make_dataset(folder / "data", "test", schema, store, arm, None)))[0]
        for arm in ARMS[:2]
    ]
    np.testing.assert_allclose(
        *(model.predict_on_batch(inputs) for inputs in first), rtol=1e-4, atol=1e-5
    )
    return pd.DataFrame(rounds), photos


def main(argv):
    del argv
    with tempfile.TemporaryDirectory() as folder:
        times, photos = measure(pathlib.Path(folder))
    table = summary(times)
    table["photos"] = [photos[name.split(",")[0]] for name in table.index]
    ratios = {
        f"{part}: {above} / {below}": ratio(
            times, f"{above}, {part}", f"{below}, {part}"
        )
        for part in ("pipeline", "step", "fit")
        for above, below in (ARMS[:2], ARMS[1:])
    }
    report({"training step of cscnn": table}, ratios, FLAGS.json)


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 7, "Number of alternations.", lower_bound=1)
    flags.DEFINE_integer("batches", 12, "Steps of each arm in a round.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
