"""Where the time of a training step goes, for `din` and `hccm`.

    python benchmarks/training_step.py --json=FILE

Builds the TFRecords of a random log (25 features, three histories of up to 100 clicks,
see `build_examples.py`) and a feature-map store of its 100 thousand items, 7x7x96.
Then, in turn, for batches of 512 with the defaults of `build_model` and `LazyAdam`,
- pipeline: the input pipeline alone, from the TFRecords to the batch with its maps;
- step: training steps on batches that are in memory;
- fit: both together, as `train_main.py` runs them;
- for `hccm` also its parts alone, each forward and backward on the same batches: the
  step of `din`, `HybridCNN` on the batch's maps, `DINAttention` over the images;
- the product of two float32 matrices, 2048x2048.
Floating-point operations are counted from the shapes: 2 for each multiply-add, and
3 products where the forward has 1.
"""

import itertools
import math
import pathlib
import tempfile

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import app, flags
from build_examples import make_log
from stores import make_store
from timing import (
    batch_seconds,
    fit_seconds,
    ratio,
    report,
    seconds,
    summary,
    training_step,
)

from hccm_tf.data.dataset import Batches
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.schema import Schema
from hccm_tf.models import build_model
from hccm_tf.optimizers import LazyAdam
from hccm_tf.preparation.examples.build import build_examples

BATCH_SIZE, MATRIX = 512, 2048
# See the docstring of `HybridCNN`.
CNN_MULTIPLY_ADDS = 1_510_000


def forward_and_backward(layer, inputs, watched=()):
    """Function that runs a layer, with the gradients of its weights and some inputs."""

    @tf.function
    def step(inputs):
        sources = [inputs[name] for name in watched]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = tf.reduce_sum(layer(**inputs, training=True))
        gradients = tape.gradient(loss, [*sources, *layer.trainable_weights])
        return [tf.reduce_sum(g) for g in gradients]

    turn = itertools.cycle(inputs)
    return lambda: [g.numpy() for g in step(next(turn))]


def cnn_inputs(batch):
    maps, category = batch["image_map"], batch["image_category"]
    return {
        "feature_map": tf.cast(maps, tf.float32),
        "category": category,
        "feature_map_mask": category != 0,
    }


def attention_inputs(batch, dim):
    return {
        "query": tf.random.normal((*batch["candidate_image"].shape, dim)),
        "keys": tf.random.normal((*batch["history_image"].shape, dim)),
        "keys_mask": batch["history_image"] != 0,
    }


def operations(model, batch):
    """Floating-point operations of a training step of `hccm`: its matrix products."""
    ranker = model.get_layer("ranker")
    dense = [layer for layer in ranker.layers if isinstance(layer, keras.layers.Dense)]
    multiply_adds = BATCH_SIZE * sum(math.prod(layer.kernel.shape) for layer in dense)
    multiply_adds += len(batch["image_map"]) * CNN_MULTIPLY_ADDS
    for name, positions in (
        ("history_attention", tf.math.count_nonzero(batch["history_item_id"])),
        # Wide: all slots, and one kernel for each candidate.
        ("image_attention", tf.size(batch["history_image"])),
    ):
        unit = ranker.get_layer(name)
        dim, (first, second) = unit.kernel.shape[0] // 4, unit.hidden_units
        rows = dim if name == "image_attention" else 3 * dim + 1
        multiply_adds += int(positions) * (rows * first + first * second + second)
    return 3 * 2 * multiply_adds


def main(argv):
    del argv
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        items, log = make_log(folder, FLAGS.rows)
        build_examples(items, log, folder / "data", history_columns=())
        make_store(folder / "maps", pd.read_parquet(items).image.tolist())
        store = FeatureMapStore.open(folder / "maps")
        schema = Schema.load(folder / "data")
        models, datasets, batches = {}, {}, {}
        for name, maps in (("din", None), ("hccm", store)):
            options = {}
            if maps:
                options = {
                    "feature_map_shape": maps.shape,
                    "channel_mean": maps.channel_mean,
                    "channel_std": maps.channel_std,
                }
            models[name] = build_model(name, schema, **options)
            models[name].compile(
                LazyAdam(1e-3), "binary_crossentropy", jit_compile=False
            )
            source = Batches(folder / "data", schema, BATCH_SIZE, maps)
            dataset = source.dataset("train", epoch=0)
            datasets[name] = dataset.map(lambda x, y, weight, keys: (x, y)).repeat()
            batches[name] = list(datasets[name].take(FLAGS.batches))
        measure(models, datasets, batches)


def measure(models, datasets, batches):
    cnn = models["hccm"].get_layer("image_encoder").get_layer("hybrid_cnn")
    attention = models["hccm"].get_layer("ranker").get_layer("image_attention")
    images = [inputs for inputs, _ in batches["hccm"]]
    matrix = tf.random.normal((MATRIX, MATRIX))
    arms = {
        f"{name}, step": training_step(models[name], batches[name]) for name in models
    }
    arms["HybridCNN"] = forward_and_backward(cnn, [cnn_inputs(b) for b in images])
    arms["image attention"] = forward_and_backward(
        attention,
        [attention_inputs(b, cnn.embedding_dim) for b in images],
        watched=("query", "keys"),
    )
    arms["matrix product"] = lambda: tf.matmul(matrix, matrix).numpy()
    for function in arms.values():
        function()
    rounds = []
    for _ in range(FLAGS.rounds):
        row = {}
        for name in models:
            row[f"{name}, pipeline"] = batch_seconds(datasets[name], 4 * FLAGS.batches)
        for name, function in arms.items():
            row[name] = seconds(lambda f=function: [f() for _ in range(FLAGS.batches)])
            row[name] /= FLAGS.batches
        for name, model in models.items():
            row[f"{name}, fit"] = fit_seconds(model, datasets[name], FLAGS.batches)
        rounds.append(row)
    times = pd.DataFrame(rounds)
    parts = ["din, step", "HybridCNN", "image attention"]
    times["sum of parts"] = times[parts].sum(axis=1)
    rate = 2 * MATRIX**3 / times["matrix product"]
    count = np.mean([operations(models["hccm"], batch) for batch in images])
    times["at the rate of the matrix product"] = count / rate
    table = summary(times)
    table["examples/s"] = 1e3 * BATCH_SIZE / table["median ms"]
    table.loc[["matrix product"], "examples/s"] = np.nan
    ratios = {
        f"{name}: step / pipeline": ratio(times, f"{name}, step", f"{name}, pipeline")
        for name in models
    }
    ratios["hccm: fit / sum of parts"] = ratio(times, "hccm, fit", "sum of parts")
    ratios["hccm: share of the matrix product's rate"] = ratio(
        times, "at the rate of the matrix product", "hccm, fit"
    )
    sizes = [len(batch["image_map"]) for batch in images]
    title = f"batch {BATCH_SIZE}, {np.mean(sizes):.0f} maps, {count / 1e9:.1f} GFLOP"
    report({title: table}, ratios, FLAGS.json)


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_integer("rows", 100_000, "Size of the log.", lower_bound=BATCH_SIZE)
    flags.DEFINE_integer("rounds", 7, "Number of alternations.", lower_bound=1)
    flags.DEFINE_integer("batches", 8, "Steps of each side in a round.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
