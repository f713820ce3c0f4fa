"""What it saves that a request's impressions share its user: data and training.

    python benchmarks/by_request.py --request_size=10 --clicks=8 --json=FILE
    python benchmarks/by_request.py --request_size=14 --clicks=85

Makes a log of random requests (25 features, three histories, items by Zipf's law, a
feature map of 7x7x96 for each) and builds it twice: by request, and flat, where every
impression is a request of its own. Then, in turn, the examples/s of building both, of
their input pipelines, and of training `din` and `hccm` in `fit`, with batches of 512
impressions and the options named below. The number of clicks is a history's mean; their
lengths are Poisson's, 100 at most. The distinct photos of a batch, which the trainable
CNN encodes, are the bound of what `hccm` can gain.
"""

import pathlib
import tempfile

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import app, flags
from keras.losses import BinaryCrossentropy
from stores import make_store
from timing import batch_seconds, fit_seconds, ratio, report, seconds

from hccm_tf.data.dataset import Batches
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.folder import DataFolder
from hccm_tf.models import build_model
from hccm_tf.optimizers import LazyAdam
from hccm_tf.preparation.examples.build import build_examples

NUM_ITEMS, USERS, MAX_HISTORY = 20_000, 10_000, 100
BATCH_SIZE = 512
OPTIONS = {
    "embedding_dim": 8,
    "hidden_units": (400, 160, 80),
    "attention_hidden_units": (80, 40),
    "attention_activation": "dice",
    "id_dropout": 0,
}
IMAGE_OPTIONS = {
    "image_embedding_dim": 128,
    "cnn_filters": (64, 128),
    "image_attention": "din",
    "similarity": "none",
}


def make_items(rng):
    ids = 10**9 + np.arange(NUM_ITEMS)
    items = {"item_id": ids, "image": [f"{item}.jpg" for item in ids]}
    items["category"] = rng.integers(0, 300, NUM_ITEMS)
    for number in range(8):
        items[f"item_{number}"] = rng.integers(0, 900, NUM_ITEMS)
    return pd.DataFrame(items)


def make_log(rng, items, requests, request_size, clicks):
    """Data frame of impressions with ready-made histories; a tenth is validation."""
    popular = rng.permutation(items.item_id.to_numpy())

    def draw(size):
        # Zipf's law of exponent 1: uniform in the logarithm of the rank.
        return popular[(NUM_ITEMS ** rng.random(size)).astype(int) - 1]

    lengths = np.minimum(rng.poisson(clicks, requests), MAX_HISTORY)
    histories = np.split(draw(lengths.sum()), np.cumsum(lengths)[:-1])
    log = {
        "request_id": np.arange(requests),
        "user_id": rng.integers(0, USERS, requests),
        "split": np.where(np.arange(requests) % 10, "train", "validation"),
    }
    for number in range(12):
        log[f"log_{number}"] = rng.integers(0, 900, requests)
    for number in range(2):
        log[f"number_{number}"] = rng.random(requests, np.float32)
    log["history_item_id"] = pd.Series(histories)
    log = pd.DataFrame(log)
    log = log.loc[log.index.repeat(request_size)].reset_index(drop=True)
    log["item_id"] = draw(len(log))
    log["label"] = (rng.random(len(log)) < 0.1).astype(int)
    return log


def compiled(name, schema, store):
    images, options = {}, OPTIONS
    if name == "hccm":
        images = {
            "feature_map_shape": store.shape,
            "channel_mean": store.channel_mean,
            "channel_std": store.channel_std,
        }
        options = OPTIONS | IMAGE_OPTIONS
    model = build_model(name, schema, **images, **options)
    loss = BinaryCrossentropy(reduction="mean_with_sample_weight")
    model.compile(LazyAdam(1e-3), loss, jit_compile=False)
    return model


def build(folder, side, number):
    """Builds the examples of a side."""
    items, log = folder / "items.parquet", folder / f"{side}.parquet"
    target = folder / f"{side}, {number}"
    splits = "train", "validation"
    build_examples(items, log, target, splits=splits, history_columns=())


def make_arms(folder, sides):
    """Name → `(model, dataset, impressions of a batch)`, of each first data folder."""
    store, arms = FeatureMapStore.open(folder / "maps"), {}
    for name in ("din", "hccm"):
        for side in sides:
            data = DataFolder(folder / f"{side}, 0")
            images = store if name == "hccm" else None
            batches = Batches(data.path, data.schema(), BATCH_SIZE, images)
            dataset = batches.dataset("train", epoch=0)
            dataset = dataset.map(lambda x, y, weight, keys: (x, y, weight)).repeat()
            size = batches.requests_per_batch("train") * data.max_candidates
            arms[name, side] = compiled(name, batches.schema, store), dataset, size
    return arms


def photos(dataset, size, batches):
    """Distinct photos of a batch, divided by its impressions."""
    sides = ("candidate_image", "history_image")
    counts = [
        max(int(tf.reduce_max(inputs[side])) for side in sides)
        for inputs, *_ in dataset.take(batches)
    ]
    return np.mean(counts) / size


def measure(arms):
    """Examples/s of each arm's parts, and of building, a row for each round."""
    rounds = []
    for _ in range(FLAGS.rounds + 1):
        rounds.append({})
        for (name, side), (model, dataset, size) in arms.items():
            for what, time in (
                ("pipeline", batch_seconds(dataset, 2 * FLAGS.batches)),
                ("training", fit_seconds(model, dataset, FLAGS.batches)),
            ):
                rounds[-1][f"{name}, {what}, {side}"] = size / time
    # The first round traces.
    return pd.DataFrame(rounds[1:])


def main(argv):
    del argv
    rng = np.random.default_rng(0)
    items = make_items(rng)
    log = make_log(
        rng,
        items,
        FLAGS.impressions // FLAGS.request_size,
        FLAGS.request_size,
        FLAGS.clicks,
    )
    sides = {"by request": log, "flat": log.assign(request_id=np.arange(len(log)))}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        items.to_parquet(folder / "items.parquet", index=False)
        make_store(folder / "maps", items.image.tolist())
        for side, frame in sides.items():
            frame.to_parquet(folder / f"{side}.parquet", index=False)
        builds = pd.DataFrame(
            [
                {
                    f"build, {side}": len(log)
                    / seconds(lambda s=side, n=number: build(folder, s, n))
                    for side in sides
                }
                for number in range(FLAGS.builds)
            ]
        )
        num_bytes = {
            side: sum(f.stat().st_size for f in (folder / f"{side}, 0").glob("*.tfr*"))
            for side in sides
        }
        arms = make_arms(folder, sides)
        rates = measure(arms)
        distinct = {s: photos(*arms["hccm", s][1:], FLAGS.batches) for s in sides}
    each = pd.DataFrame(
        {
            "bytes an impression": pd.Series(num_bytes) / len(log),
            "photos an impression": pd.Series(distinct),
        }
    )
    ratios = {
        f"{what}: flat / by request": (values["flat"] / values["by request"],)
        for what, values in each.items()
    }
    for table in (builds, rates):
        for name in table:
            if name.endswith("by request"):
                flat = name.replace("by request", "flat")
                ratios[f"{name} / flat"] = ratio(table, name, flat)
    for name in ("din", "hccm"):
        ratios[f"{name}, by request: pipeline / training"] = ratio(
            rates, f"{name}, pipeline, by request", f"{name}, training, by request"
        )
    table = pd.concat([builds.median(), rates.median()]).to_frame("examples/s")
    title = f"{FLAGS.request_size} impressions a request, histories of {FLAGS.clicks}"
    report({title: table, "data": each}, ratios, FLAGS.json)


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_integer("impressions", 100_000, "Size of the log.", lower_bound=5_120)
    flags.DEFINE_integer("request_size", 10, "Impressions a request.", lower_bound=1)
    flags.DEFINE_float("clicks", 8, "Clicks of a history.", lower_bound=0)
    flags.DEFINE_integer("builds", 3, "Builds of each side.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Number of alternations.", lower_bound=1)
    flags.DEFINE_integer("batches", 8, "Steps of each side in a round.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
