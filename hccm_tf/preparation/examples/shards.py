"""The log between the steps of `build_examples`: one part for each hash of the user.

All rows of a user come to one part, so that histories can be joined there with memory
for that part only. A shuffle of Beam's would hold the rows in memory on one machine.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hccm_tf.atomic import new_file
from hccm_tf.data.schema import Schema
from hccm_tf.preparation.examples.impressions import ALL_SPLITS, LogReader

VALIDATION_FROM = 0.8
TEST_FROM = 0.9


@dataclasses.dataclass(frozen=True)
class Job:
    """What the steps of `build_examples` share; workers get it by pickle.

    Args:
        output: folder of the data set.
        work: folder for the files between the steps.
        pieces: list of `Piece` of the log.
        parts: number of parts, and of shards of each split.
        types: name → Arrow type of the log's columns.
        schema: `Schema`, without vocabularies unless they are given.
        inferred: whether the schema was inferred, not given.
        splits: names of the splits to write.
        min_count: occurrences below which a value is out of the vocabulary.
        max_vocabulary: number of values above which a vocabulary becomes a hash.
        max_bad_rows: number of bad rows to skip before one is an error.
        seed: of the order of training rows and of the sample of negatives.
    """

    output: pathlib.Path
    work: pathlib.Path
    pieces: list
    parts: int
    types: dict
    schema: Schema
    inferred: bool
    splits: tuple
    min_count: int = 1
    max_vocabulary: int = 10_000_000
    max_bad_rows: int = 0
    seed: int = 0

    @functools.cached_property
    def items(self):
        """Arrow table of the catalogue by sorted `key`; mapped, shared by workers."""
        with pa.memory_map(str(self.work / "items.arrow")) as source:
            return pa.ipc.open_file(source).read_all()

    def make_folders(self):
        """Makes the folders that the steps write into, once, before they run."""
        for name in ("parts", "pieces", "counts", "features", "written"):
            (self.work / name).mkdir()
        for feature in self.schema.scalars:
            (self.work / "counts" / feature.name).mkdir()
        (self.output / "vocabularies").mkdir()

    def part_folder(self, part):
        """Where a part's rows lie, one file for each piece of the log."""
        return self.work / "parts" / f"{part:05d}"


def write_json(path, content):
    """Writes a small file whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(content))


def hash_part(user_keys, parts):
    """The part of each user key, int64 array."""
    return (pd.util.hash_array(user_keys) % np.uint64(parts)).astype(np.int64)


def _add_seconds(one, two):
    """Adds up two arrays `[2, N]` of distinct seconds and their numbers of rows."""
    seconds, counts = np.concatenate([one, two], axis=1)
    distinct, place = np.unique(seconds, return_inverse=True)
    return np.stack([distinct, np.bincount(place, counts, len(distinct)).astype(int)])


def partition(job, number):
    """First step: deals out piece `number` of the log to the parts of its users."""
    reader = LogReader(job.types, job.items["key"].to_numpy(), job.max_bad_rows)
    writers, name = {}, f"{number:06d}.arrow"
    seconds = np.zeros((2, 0), np.int64)
    with contextlib.ExitStack() as files:
        for table in reader.read(job.pieces[number]):
            part = hash_part(table["user_key"].to_numpy(), job.parts)
            order = np.argsort(part, kind="stable")
            rows = table.take(order)
            bounds = np.searchsorted(part[order], np.arange(job.parts + 1)).tolist()
            for target in np.unique(part).tolist():
                if target not in writers:
                    folder = job.part_folder(target)
                    folder.mkdir(exist_ok=True)
                    path = files.enter_context(new_file(folder / name))
                    writer = pa.ipc.new_file(str(path), table.schema)
                    writers[target] = files.enter_context(writer)
                begin, end = bounds[target], bounds[target + 1]
                writers[target].write_table(rows.slice(begin, end - begin))
            if "split" not in job.types:
                times = table["timestamp"].to_numpy()
                seconds = _add_seconds(seconds, [times, np.ones_like(times)])
    with new_file(job.work / "pieces" / f"{number:06d}.npy") as temporary:
        with open(temporary, "wb") as handle:
            np.save(handle, seconds)
    write_json(
        job.work / "pieces" / f"{number:06d}.json",
        {"counts": reader.counts, "bad_rows": reader.bad_rows},
    )


def split_by_time(job, _):
    """Second step, where the log has no splits: the times at which they begin.

    The newest 10% of the impressions are `test`, the 10% before them `validation`;
    impressions of one second stay together. Memory: 16 bytes for each distinct second.
    """
    pieces = map(np.load, sorted((job.work / "pieces").glob("*.npy")))
    times, counts = functools.reduce(_add_seconds, pieces)
    place = (np.cumsum(counts) - counts + 1) / max(counts.sum(), 1)
    begins = [
        int(times[min(np.searchsorted(place, share, side="right"), len(times) - 1)])
        for share in (VALIDATION_FROM, TEST_FROM)
        if len(times)
    ]
    write_json(job.work / "split_times.json", begins)


def _uniform(seed, *keys):
    """A number in [0, 1) for each row, a function of its keys and the seed alone."""
    state = np.full(len(keys[0]), seed, np.uint64)
    for key in keys:
        state = pd.util.hash_array(state ^ key.astype(np.uint64))
    return (state >> np.uint64(11)) * 2.0**-53


def load_part(job, part):
    """The rows of one part, in the log's order, or `None` where no user falls into it.

    Returns:
        `(table, split, items)`: Arrow table of the rows that are kept, int8 array of
        their splits as places in `ALL_SPLITS`, and the number of negatives left out.
    """
    files = sorted(job.part_folder(part).glob("*.arrow"))
    if not files:
        return None
    tables = [pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in files]
    table = pa.concat_tables(tables)
    if "split" in job.types:
        split = table["split"].to_numpy()
    else:
        begins = json.loads((job.work / "split_times.json").read_text())
        times = table["timestamp"].to_numpy()
        split = np.searchsorted(begins, times, side="right").astype(np.int8)
    left_out = np.zeros(len(table), bool)
    if job.schema.negative_keep_rate < 1:
        items = job.items["key"].to_numpy()[table["item_row"].to_numpy()]
        keys = [table["user_key"].to_numpy(), items]
        if "timestamp" in job.types:
            keys.append(table["timestamp"].to_numpy())
        # Rows that are alike are told apart by their order.
        frame = pd.DataFrame(dict(enumerate(keys)))
        keys.append(frame.groupby(list(frame)).cumcount().to_numpy())
        draw = _uniform(job.seed, *keys)
        left_out = draw >= job.schema.negative_keep_rate
        left_out &= split == ALL_SPLITS.index("train")
        left_out &= table["label"].to_numpy() == 0
    kept = ~left_out
    return table.filter(pa.array(kept)), split[kept], int(left_out.sum())


def column_of(job, table, name, rows=None):
    """A column of the log or, joined by `item_row`, of the catalogue.

    Args:
        job: `Job`.
        table: of `load_part`.
        name: column.
        rows: bool array, the rows wanted; all by default.

    Returns:
        Arrow array, int64, float32 or string.
    """
    if name in table.column_names:
        column = table[name]
        return column if rows is None else column.filter(pa.array(rows))
    item_row = table["item_row"].to_numpy()
    return pc.take(job.items[name], item_row if rows is None else item_row[rows])
