"""Time of a training step of `hccm` with a small and with a large feature-map store.

    python benchmarks/catalogue_size.py --json=FILE

Makes feature-map stores of 10 thousand and of 1 million images, 7x7x96 in float16, and
trains one model from each in turn, batches of 256 with histories of 100 and 1,500
unique images. Before that the process forbids itself more private memory than
--memory_limit (RLIMIT_DATA), which the large store exceeds; the page cache is not
limited. Cold: the first pass after the store's pages were dropped from the page cache,
measured once; warm: later passes over the same 40 batches. `pipeline` is the gathering
of the maps without training.
"""

import os
import pathlib
import resource
import tempfile

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import app, flags
from image_deduplication import CATEGORIES, ITEMS, SCHEMA
from stores import MAP_SHAPE, make_store
from timing import batch_seconds, fit_seconds, ratio, report, summary

from hccm_tf.data import ids
from hccm_tf.data.deduplication import deduplicate
from hccm_tf.data.feature_kinds import RESERVED
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.models import build_model
from hccm_tf.optimizers import LazyAdam

BATCH_SIZE, MAX_HISTORY, UNIQUE, BATCHES = 256, 100, 1_500, 40
SIZES = {"10 thousand images": 10_000, "1 million images": 1_000_000}


def image_names(count):
    return [f"{number}.jpg" for number in range(count)]


def drop_cached_pages(folder):
    """Writes a store's pages to disk and forgets them."""
    for path in folder.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_dataset(store, names):
    """Batches of `(inputs, label)`: keys from memory, maps from the store."""
    rng = np.random.default_rng(0)
    keys = ids.image_keys(tf.constant(names)).numpy()
    shape = (BATCH_SIZE, MAX_HISTORY + 1)
    images = np.stack(
        [
            rng.choice(rng.choice(len(keys), UNIQUE, replace=False), shape)
            for _ in range(BATCHES)
        ]
    )

    def to_batch(images, image_keys):
        rows = store.find(image_keys)
        category = RESERVED + images % CATEGORIES
        item = RESERVED + images % ITEMS
        unique, image_category, candidate_image, history_image = deduplicate(
            rows[:, :1], category[:, :1], rows[:, 1:], category[:, 1:]
        )
        inputs = {
            "user_id": item[:, 0],
            "item_id": item[:, :1],
            "category": category[:, :1],
            "candidate_mask": tf.ones((BATCH_SIZE, 1), tf.bool),
            "history_item_id": item[:, 1:],
            "history_category": category[:, 1:],
            "image_map": store.gather(unique),
            "image_category": image_category,
            "candidate_image": candidate_image,
            "history_image": history_image,
        }
        return inputs, tf.cast(images[:, :1, None] % 2, tf.float32)

    dataset = tf.data.Dataset.from_tensor_slices(
        (images.astype(np.int32), keys[images])
    )
    dataset = dataset.repeat().map(to_batch, num_parallel_calls=2).prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def main(argv):
    del argv
    with tempfile.TemporaryDirectory(dir=FLAGS.dir) as folder:
        folder = pathlib.Path(folder)
        datasets = {}
        for name, count in SIZES.items():
            make_store(folder / name, image_names(count))
        limit = int(FLAGS.memory_limit * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        for name, count in SIZES.items():
            store = FeatureMapStore.open(folder / name)
            datasets[name] = make_dataset(store, image_names(count))
        size = sum(file.stat().st_size for file in (folder / name).iterdir())
        model = build_model("hccm", SCHEMA, feature_map_shape=MAP_SHAPE, id_dropout=0)
        model.compile(LazyAdam(1e-3), "binary_crossentropy", jit_compile=False)
        small, large = SIZES
        fit_seconds(model, datasets[small], BATCHES)
        drop_cached_pages(folder / large)
        cold = fit_seconds(model, datasets[large], BATCHES)
        times = pd.DataFrame(
            [
                {n: fit_seconds(model, d, BATCHES) for n, d in datasets.items()}
                | {
                    f"{n}, pipeline": batch_seconds(d, BATCHES)
                    for n, d in datasets.items()
                }
                for _ in range(FLAGS.rounds)
            ]
        )
    table = summary(times)
    table.loc[f"{large}, cold", "median ms"] = 1e3 * cold
    report(
        {f"hccm, store {size / 1e9:.1f} GB, memory {limit / 1e9:.1f} GB": table},
        {
            "warm: large / small": ratio(times, large, small),
            "cold: large / small": [cold / times[small].median()],
        },
        FLAGS.json,
    )


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_float("memory_limit", 4, "GiB of private memory.")
    flags.DEFINE_string("dir", None, "Folder with room for 10 GB.")
    flags.DEFINE_integer("rounds", 5, "Number of alternations.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
