"""Latency of an export of `hccm` on one core, against floors and alternatives.

    python benchmarks/serving.py --json=FILE

The model is `hccm` with its default widths, histories of 100, images of 128 values,
DIN's attention over items and images, and a float16 table of random representations.
Weights are random too: time does not depend on them. In turn with it, on the same core:

- the bare matrix products of a request, in NumPy;
- `serving_default` with the candidates as rows;
- a table with many more rows;
- `rank` with fewer candidates;
- the CNNs online: MobileNetV3-Small at 224 pixels and the trainable CNN, for all
  photos of a request, from decoded pixels; and the trainable CNN alone.
"""

import os

# Before a library asks how many cores there are.
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

# ruff: noqa: E402, I001
import itertools
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from serving_export import MAP_SHAPE, export, request
from timing import alternate, ratio, report
from threadpoolctl import threadpool_limits

HISTORY, CANDIDATES = 100, 200
FLAGS = flags.FLAGS


def matrix_products(model):
    """Shapes `(count, rows, inner, columns)` of a `rank` request's matrix products.

    A history's attention unit has a kernel for each candidate; the user's part of the
    final MLP is applied once.
    """
    ranker = model.get_layer("ranker")
    products = []
    for name in ("history_attention", "image_attention"):
        unit = ranker.get_layer(name)
        dim, (first, second) = unit.kernel.shape[0] // 4, unit.hidden_units
        products += [
            (1, CANDIDATES, dim, first),
            (CANDIDATES, HISTORY, dim, first),
            (1, CANDIDATES * HISTORY, first, second),
            (1, CANDIDATES * HISTORY, second, 1),
            (1, CANDIDATES, HISTORY, dim),
        ]
    user = ranker.get_layer("user_id_embedding").output.shape[-1] * 2
    width, units = ranker.get_layer("hidden_0").kernel.shape
    products += [(1, 1, user, units), (1, CANDIDATES, width - user, units)]
    for name in ("hidden_1", "hidden_2", "ctr"):
        products.append((1, CANDIDATES, *ranker.get_layer(name).kernel.shape))
    return products


def multiply_adds(products):
    return sum(np.prod(shape) for shape in products)


def bare(products):
    """A function that computes the products of random matrices."""
    rng = np.random.default_rng(0)
    pairs = [
        (
            rng.standard_normal((count, rows, inner), np.float32),
            rng.standard_normal((count, inner, columns), np.float32),
        )
        for count, rows, inner, columns in products
    ]
    return lambda: [np.matmul(left, right) for left, right in pairs]


def cnns_online(model):
    """Functions that encode all photos of a request: from pixels, and from maps."""
    count = HISTORY + CANDIDATES
    backbone = keras.applications.MobileNetV3Small(
        input_shape=(224, 224, 3), include_top=False, weights=None
    )
    backbone = keras.Model(
        backbone.input, backbone.get_layer("expanded_conv_10_add").output
    )
    encoder = model.get_layer("image_encoder")
    category = tf.ones([count], tf.int32)
    pixels = tf.random.uniform((count, 224, 224, 3), maxval=255)
    maps = tf.cast(tf.random.normal((count, *MAP_SHAPE)), tf.float16)

    @tf.function
    def trainable(maps):
        inputs = {"image_map": maps, "image_category": category}
        return encoder(inputs, training=False)

    @tf.function
    def both(pixels):
        return trainable(tf.cast(backbone(pixels, training=False), tf.float16))

    return lambda: both(pixels).numpy(), lambda: trainable(maps).numpy()


def percentiles(times):
    """p50 and p99 of each column, in milliseconds."""
    table = times.quantile([0.5, 0.99]).T * 1e3
    table.columns = ["p50 ms", "p99 ms"]
    return table


def main(argv):
    del argv
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        folder = pathlib.Path(folder)
        arms, models = {}, {}
        for rows in (FLAGS.few_rows, FLAGS.many_rows):
            model, version = export(folder / str(rows), rows)
            models[rows] = tf.saved_model.load(str(version))
            rank = models[rows].signatures["rank"]
            requests = [
                request(rank, 1, CANDIDATES, HISTORY, rows, seed) for seed in range(50)
            ]
            arms[f"rank, {rows:,} rows"] = asking(rank, requests)
            if rows == FLAGS.few_rows:
                default = models[rows].signatures["serving_default"]
                flat = [
                    request(default, CANDIDATES, None, HISTORY, rows, seed)
                    for seed in range(50)
                ]
                arms["serving_default"] = asking(default, flat)
                fewer = [
                    request(rank, 1, FLAGS.fewer_candidates, HISTORY, rows, seed)
                    for seed in range(50)
                ]
                arms[f"rank, {FLAGS.fewer_candidates} candidates"] = asking(rank, fewer)
                products = matrix_products(model)
                arms["bare matrix products"] = bare(products)
                online, trainable = cnns_online(model)
        times = alternate(arms, FLAGS.rounds)
        few, many = (
            f"rank, {rows:,} rows" for rows in (FLAGS.few_rows, FLAGS.many_rows)
        )
        slow = alternate(
            {few: arms[few], "both CNNs": online, "trainable CNN": trainable},
            FLAGS.slow_rounds,
        )
    table = percentiles(times)
    p99 = table["p99 ms"][few] / table["p50 ms"]["bare matrix products"]
    ratios = {
        "rank, p99 / bare matrix products": (p99,),
        "rank, p50 / bare matrix products": ratio(times, few, "bare matrix products"),
        "rank / serving_default": ratio(times, few, "serving_default"),
        "many rows / few": ratio(times, many, few),
        "both CNNs online / rank": ratio(slow, "both CNNs", few),
        "trainable CNN online / rank": ratio(slow, "trainable CNN", few),
    }
    print(f"multiply-adds of a rank request: {multiply_adds(products):,}")
    title = f"{CANDIDATES} candidates, history of {HISTORY}, one core"
    report({title: table, "online": percentiles(slow)}, ratios, FLAGS.json)


def asking(signature, requests):
    """A function that sends the next request and waits for the answer."""
    turn = itertools.cycle(requests)
    return lambda: signature(**next(turn))["ctr"].numpy()


if __name__ == "__main__":
    flags.DEFINE_integer("few_rows", 10_000, "Rows of the small table.")
    flags.DEFINE_integer("many_rows", 10_000_000, "Rows of the large table.")
    flags.DEFINE_integer("fewer_candidates", 50, "Of the second rank request.")
    flags.DEFINE_integer("rounds", 300, "Requests of each side.", lower_bound=1)
    flags.DEFINE_integer("slow_rounds", 5, "Of the sides with CNNs.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
