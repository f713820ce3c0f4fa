r"""Rate of `build_examples` against bare loops that only fill and serialise.

    python benchmarks/build_examples.py --rows=100000 --rows=3000000

Makes a log of random impressions, as Parquet, with 25 features and three histories of
at most 100 clicks (click rate 0.2), builds its TFRecords, and reads some of them back.
The floor is the rate at which one loop per core fills ONE message anew with the values
of these records, which are ready in memory, and serialises it: no reading, no joining,
no writing. The two alternate, and medians are printed.

`peak MB` is the most anonymous memory that all processes together had at a moment, read
from /proc ten times a second; files that are mapped do not count. With

    python benchmarks/build_examples.py --rows=3000000 --rows=30000000 \
        --max_history=10 --repeats=1

it shows that memory does not follow the log's size, within 40 GB of disk.
"""

import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import statistics
import tempfile
import threading
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from absl import app, flags

from hccm_tf.data.folder import DataFolder
from hccm_tf.preparation.examples.build import build_examples

NUM_ITEMS = 100_000
ROWS_PER_USER = 2_000
CLICK_RATE = 0.2
CHUNK = 250_000
FLOOR_RECORDS = 20_000
ITEM_ATTRIBUTES = 8
LOG_ATTRIBUTES = 14


def make_log(folder, rows, seed=0):
    """Writes items.parquet and impressions.parquet, and returns their paths."""
    rng = np.random.default_rng(seed)
    items = {
        "item_id": 10**9 + np.arange(NUM_ITEMS),
        "image": [f"{item}.jpg" for item in range(NUM_ITEMS)],
        "category": rng.integers(0, 300, NUM_ITEMS),
    }
    for number in range(ITEM_ATTRIBUTES):
        items[f"item_{number}"] = rng.integers(0, 900, NUM_ITEMS)
    pd.DataFrame(items).to_parquet(folder / "items.parquet")
    writer = None
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        columns = {
            "user_id": rng.integers(0, max(rows // ROWS_PER_USER, 1), count),
            "item_id": 10**9 + (NUM_ITEMS * rng.random(count) ** 3).astype(np.int64),
            "timestamp": 1_700_000_000
            + (start + np.arange(count)) * 30 * 86_400 // rows,
            "label": (rng.random(count) < CLICK_RATE).astype(np.int64),
        }
        for number in range(LOG_ATTRIBUTES - 2):
            columns[f"log_{number}"] = rng.integers(0, 900, count)
        for number in range(2):
            columns[f"number_{number}"] = rng.random(count).astype(np.float32)
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(
            folder / "impressions.parquet", table.schema
        )
        writer.write_table(table)
    writer.close()
    return folder / "items.parquet", folder / "impressions.parquet"


def _records(data_dir):
    files = DataFolder(data_dir).files("train")
    dataset = tf.data.Dataset.from_tensor_slices(files)
    dataset = dataset.interleave(tf.data.TFRecordDataset, cycle_length=len(files))
    return [record.numpy() for record in dataset.take(FLOOR_RECORDS)]


def floor_loop(records):
    """Examples/s of one bare loop over the values of these records."""
    examples = [tf.train.Example.FromString(record) for record in records]
    first = examples[0].features.feature
    kinds = {name: feature.WhichOneof("kind") for name, feature in first.items()}
    columns = [
        [list(getattr(e.features.feature[name], kind).value) for e in examples]
        for name, kind in kinds.items()
    ]
    message = tf.train.Example()
    targets = [
        getattr(message.features.feature[name], kind).value
        for name, kind in kinds.items()
    ]
    begin = time.perf_counter()
    for row in zip(*columns, strict=True):
        for target, values in zip(targets, row, strict=True):
            target[:] = values
        message.SerializeToString(deterministic=True)
    return len(records) / (time.perf_counter() - begin)


def floor(records):
    """Examples/s of one loop per core, together."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), context) as pool:
        return sum(pool.map(floor_loop, [records] * os.cpu_count()))


def _anonymous_megabytes(pid):
    """Anonymous memory of a process and its descendants; 0 for one that has ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
        children = [c for t in tasks for c in (t / "children").read_text().split()]
    except OSError:
        return 0
    own = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(own[1] if own else 0) // 1024 + sum(map(_anonymous_megabytes, children))


class PeakMemory(threading.Thread):
    """Watches this process and its descendants between `start` and `stop`."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.ended = 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.1):
            self.peak = max(self.peak, _anonymous_megabytes(os.getpid()))

    def stop(self):
        self.ended.set()
        self.join()
        return self.peak


def measure(rows, repeats, max_history):
    """Alternates building a log of `rows` impressions with the floor.

    Returns:
        dict, a row of the table; medians of `repeats`.
    """
    seconds, floors, peaks = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        items, log = make_log(folder, rows)
        for _ in range(repeats):
            data_dir = folder / "data"
            memory = PeakMemory()
            memory.start()
            begin = time.perf_counter()
            build_examples(items, log, data_dir, max_history, history_columns=())
            seconds.append(time.perf_counter() - begin)
            peaks.append(memory.stop())
            records = _records(data_dir)
            floors.append(floor(records))
            size = sum(
                file.stat().st_size for file in DataFolder(data_dir).found_files()
            )
            shutil.rmtree(data_dir)
    rate = rows / statistics.median(seconds)
    return {
        "rows": rows,
        "bytes per row": round(size / rows),
        "seconds": round(statistics.median(seconds), 1),
        "µs per row": round(1e6 / rate, 2),
        "rows/s": round(rate),
        "floor rows/s": round(statistics.median(floors)),
        "of the floor": round(rate / statistics.median(floors), 3),
        "peak MB": round(statistics.median(peaks)),
    }


def main(argv):
    del argv
    table = [measure(rows, FLAGS.repeats, FLAGS.max_history) for rows in FLAGS.rows]
    print(pd.DataFrame(table).to_string(index=False))
    if FLAGS.json:
        pathlib.Path(FLAGS.json).write_text(json.dumps(table, indent=2) + "\n")


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_multi_integer("rows", [100_000, 3_000_000], "Sizes of the log.")
    flags.DEFINE_integer("repeats", 3, "Alternations of build and floor.")
    flags.DEFINE_integer("max_history", 100, "Clicks to keep.")
    flags.DEFINE_string("json", None, "File for the table.")
    app.run(main)
