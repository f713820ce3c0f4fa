"""Time of a training step of `din` with few and with many embedding rows.

    python benchmarks/embedding_rows.py --json=FILE

25 features and histories of 100 with lengths of median 15 (`din/workload.py`), batch
1024, dimension 8, once with 10 thousand embedding rows in all and once with 5 million,
spread evenly over the tables, with `LazyAdam` and with Keras' Adam. The ids are
- zipf: Zipf(1.2) ranks up to 399, the same in both arms, each rank a random row of its
  table: as many rows are touched, but further apart;
- uniform: over the table, so that a batch touches more rows of a larger table.
All arms take a step in turn.
"""

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from din.workload import BATCH_SIZE, EMBEDDING_DIM, MAX_HISTORY, long_tail
from timing import alternate, ratio, report, summary, training_step

from hccm_tf.data.feature import Feature
from hccm_tf.data.feature_kinds import RESERVED
from hccm_tf.data.schema import Schema
from hccm_tf.models import build_model
from hccm_tf.optimizers import LazyAdam

FEATURES, BATCHES, RANKS = 25, 16, 399
SIZES = {"10 thousand rows": 10_000, "5 million rows": 5_000_000}
OPTIMIZERS = {"LazyAdam": LazyAdam, "Adam": keras.optimizers.Adam}


def draw(rng, ids, rows, shape, places):
    """Random indices into a table."""
    if ids == "uniform":
        return rng.integers(1, rows, shape)
    weights = np.arange(1, len(places) + 1) ** -1.2
    return places[rng.choice(len(places), shape, p=weights / weights.sum())]


def make_batches(ids, rows):
    rng = np.random.default_rng(0)
    # Of a generator of its own, so that both arms draw the same ranks and lengths.
    places = np.random.default_rng(1).permutation(np.arange(1, rows))[:RANKS]
    batches = []
    for _ in range(BATCHES):
        inputs = {
            f"feature_{n}": draw(rng, ids, rows, BATCH_SIZE, places)
            for n in range(FEATURES)
        }
        history = draw(rng, ids, rows, (BATCH_SIZE, MAX_HISTORY), places)
        lengths = long_tail(rng, BATCH_SIZE)
        history[np.arange(MAX_HISTORY) >= lengths[:, None]] = 0
        inputs["history_feature_0"] = history
        inputs = {name: tf.constant(i, tf.int32) for name, i in inputs.items()}
        inputs["candidate_mask"] = tf.ones((BATCH_SIZE, 1), tf.bool)
        label = rng.integers(0, 2, (BATCH_SIZE, 1, 1))
        batches.append((inputs, tf.constant(label, tf.float32)))
    return batches


def make_arm(name, size, ids):
    """Function that takes a training step on the next of its batches."""
    rows = SIZES[size] // FEATURES
    features = [
        Feature(f"feature_{n}", "integer", size=rows - RESERVED)
        for n in range(FEATURES)
    ]
    features.append(Feature("history_feature_0", "sequence", shares="feature_0"))
    model = build_model(
        "din", Schema(tuple(features)), embedding_dim=EMBEDDING_DIM, id_dropout=0
    )
    model.compile(OPTIMIZERS[name](1e-3), "binary_crossentropy", jit_compile=False)
    return training_step(model, make_batches(ids, rows))


def main(argv):
    del argv
    tables, ratios = {}, {}
    for ids in ("zipf", "uniform"):
        arms = {
            f"{name}, {size}": make_arm(name, size, ids)
            for name in OPTIMIZERS
            for size in SIZES
        }
        times = alternate(arms, FLAGS.rounds)
        tables[f"training step of din, ids {ids}"] = summary(times)
        for name in OPTIMIZERS:
            few, many = (f"{name}, {size}" for size in SIZES)
            ratios[f"{name}, ids {ids}: many rows / few"] = ratio(times, many, few)
    report(tables, ratios, FLAGS.json)


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 48, "Number of alternations.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
