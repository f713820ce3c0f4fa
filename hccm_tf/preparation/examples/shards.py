"""The log between the steps of `build_examples`: a shard for each hash of the user.

All rows of a user come to the shards of one number, so that histories can be joined
there with memory for those only. A shuffle of Beam's would hold the rows in memory on
one machine.
"""

import contextlib
import functools
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hccm_tf.atomic import new_file
from hccm_tf.preparation.examples.impressions import ALL_SPLITS, LogReader
from hccm_tf.preparation.examples.job import write_json

VALIDATION_FROM = 0.8
TEST_FROM = 0.9


def shard_of_users(user_keys, num_shards):
    """The number of each user key's shards, int64 array."""
    return (pd.util.hash_array(user_keys) % np.uint64(num_shards)).astype(np.int64)


def _add_seconds(one, two):
    """Adds up two arrays `[2, N]` of distinct seconds and their numbers of rows."""
    seconds, counts = np.concatenate([one, two], axis=1)
    distinct, place = np.unique(seconds, return_inverse=True)
    return np.stack([distinct, np.bincount(place, counts, len(distinct)).astype(int)])


def deal_out(job, number):
    """First step: deals piece `number` of the log out to the shards of its users."""
    reader = LogReader(job.types, job.items["key"].to_numpy(), job.options.max_bad_rows)
    writers, name = {}, f"{number:06d}.arrow"
    seconds = np.zeros((2, 0), np.int64)
    with contextlib.ExitStack() as files:
        for table in reader.read(job.pieces[number]):
            shard = shard_of_users(table["user_key"].to_numpy(), job.num_shards)
            order = np.argsort(shard, kind="stable")
            rows = table.take(order)
            numbers = np.arange(job.num_shards + 1)
            bounds = np.searchsorted(shard[order], numbers).tolist()
            for target in np.unique(shard).tolist():
                if target not in writers:
                    folder = job.shard_folder(target)
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


def load_shard(job, shard):
    """The rows of a shard's users, in the log's order, or `None` where it has none.

    Returns:
        `(table, split, items)`: Arrow table of the rows that are kept, int8 array of
        their splits as places in `ALL_SPLITS`, and the number of negatives left out.
    """
    files = sorted(job.shard_folder(shard).glob("*.arrow"))
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
        table: of `load_shard`.
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
