"""The log between the steps of `build_examples`: a shard for each hash of the user.

All rows of a user come to the shards of one number, so that histories can be joined
there with memory for those only. A shuffle of Beam's would hold the rows in memory on
one machine.
"""

import contextlib
import dataclasses
import functools
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hccm_tf.atomic import new_file
from hccm_tf.preparation.examples import request_ids, requests
from hccm_tf.preparation.examples.impressions import LogReader
from hccm_tf.preparation.examples.job import write_json
from hccm_tf.preparation.examples.log_values import ALL_SPLITS, HISTORY_ITEM
from hccm_tf.preparation.examples.shard_files import read_shard
from hccm_tf.preparation.examples.user_keys import tell_apart

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
    reader = LogReader(job.types, job.columns, job.items, job.options.max_bad_rows)
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
                    whole = new_file(folder / name, lasting=False)
                    path = files.enter_context(whole)
                    writer = pa.ipc.new_file(str(path), table.schema)
                    writers[target] = files.enter_context(writer)
                begin, end = bounds[target], bounds[target + 1]
                writers[target].write_table(rows.slice(begin, end - begin))
            if "split" not in job.types:
                times = table["timestamp"].to_numpy()
                seconds = _add_seconds(seconds, [times, np.ones_like(times)])
    path = job.work / "pieces" / f"{number:06d}.npy"
    with new_file(path, lasting=False) as temporary:
        with open(temporary, "wb") as handle:
            np.save(handle, seconds)
    write_json(
        job.work / "pieces" / f"{number:06d}.json",
        {
            "counts": reader.counts,
            "bad_rows": reader.bad_rows,
            "unknown": reader.unknown,
        },
    )


def split_by_time(job, _):
    """Step after the log was read, if it has no splits: the times at which they begin.

    The newest 10% of the impressions are `test`, the 10% before them `validation`;
    impressions of one second stay together, and a request is where its earliest is.
    Memory: 16 bytes for each distinct second.
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


@dataclasses.dataclass(frozen=True)
class Shard:
    """The rows of a shard's users that are kept, in the log's order.

    Args:
        table: Arrow table.
        split: int8 `[N]`, places in `ALL_SPLITS`, the same for a request's rows.
        request: int64 `[N]`, see `hccm_tf.preparation.examples.requests.group`.
        time: int64 `[N]`, the earliest second of a row's request; `None` without times.
        left_out: number of negatives that are not kept.
    """

    table: pa.Table
    split: np.ndarray
    request: np.ndarray
    time: np.ndarray | None
    left_out: int


def load_shard(job, shard):
    """The `Shard` of this number, or `None` where it has no rows."""
    table = read_shard(job, shard)
    if table is None:
        return None
    table = tell_apart(table)
    split = table["split"].to_numpy() if "split" in job.types else None
    request, time = requests.group(table, split)
    if "request_id" in job.types:
        request_ids.check_within(job, table, split, request)
    if split is None:
        begins = json.loads((job.work / "split_times.json").read_text())
        split = np.searchsorted(begins, time, side="right").astype(np.int8)
    unused = [n for n in ("request_id", "request_key") if n in table.column_names]
    table = table.drop_columns(unused)
    kept = _kept(job, table, split)
    left_out = len(kept) - int(kept.sum())
    if left_out:
        table, split = table.filter(pa.array(kept)), split[kept]
        request = requests.keep(request, kept)
        time = None if time is None else time[kept]
    table = table.combine_chunks()
    if HISTORY_ITEM in job.types:
        longest = job.schema.max_history
        request = requests.part_by_histories(table, request, longest)
    if job.schema.vocabularies:
        names = log_columns_of_requests(job)
        request = requests.part_by_columns(table, request, names)
    return Shard(table, split, request, time, left_out)


def log_columns_of_requests(job):
    """Names of the log's columns that the schema has as those of user or context."""
    names = [feature.name for feature in job.schema.scalars if not feature.candidate]
    return [name for name in names if name in job.types]


def _kept(job, table, split):
    """Which rows the sample of the training split's negatives keeps, bool `[N]`."""
    if job.schema.negative_keep_rate == 1:
        return np.ones(len(table), bool)
    items = job.items["key"].to_numpy()[table["item_row"].to_numpy()]
    keys = [table["user_key"].to_numpy(), items]
    if "timestamp" in job.types:
        keys.append(table["timestamp"].to_numpy())
    # Rows that are alike are told apart by their order.
    frame = pd.DataFrame(dict(enumerate(keys)))
    keys.append(frame.groupby(list(frame)).cumcount().to_numpy())
    left_out = _uniform(job.seed, *keys) >= job.schema.negative_keep_rate
    left_out &= split == ALL_SPLITS.index("train")
    left_out &= table["label"].to_numpy() == 0
    return ~left_out


def column_of(job, table, name, rows=None):
    """A column of the log or, joined by `item_row`, of the catalogue.

    Args:
        job: `Job`.
        table: of a `Shard`, or some of its rows.
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
