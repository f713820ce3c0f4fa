"""Whether each `request_id` of the log is of one user and one split."""

import numpy as np
import pandas as pd
import pyarrow as pa

from hccm_tf.atomic import new_file
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.log_values import ALL_SPLITS
from hccm_tf.preparation.examples.requests import NO_REQUEST
from hccm_tf.preparation.examples.shard_files import read_shard

# The ids of so many shards are in memory at once.
SHARDS_OF_A_RANGE = 8


def num_ranges(job):
    """Into how many ranges the ids are cut to be compared across shards."""
    return -(-job.num_shards // SHARDS_OF_A_RANGE)


def check_within(job, table, split, request):
    """Raises `InputError` if rows of a request have two users or two splits.

    Args:
        job: `Job`.
        table: Arrow table of a shard's rows.
        split: int8 `[N]` of the log, `None` where it has none.
        request: of `hccm_tf.preparation.examples.requests.group`.
    """
    shown = np.flatnonzero(request != NO_REQUEST)
    checks = [("users", table["user_key"].to_numpy())]
    if split is not None:
        checks.append(("splits", split))
    for what, values in checks:
        bad = values[shown] != values[request[shown]]
        if bad.any():
            row = int(shown[np.argmax(bad)])
            raise _error(job, what, [table.slice(request[row], 1), table.slice(row, 1)])


def _error(job, what, rows):
    """The `InputError` of two rows, Arrow tables, that one id joins."""
    one, two = sorted(rows, key=lambda row: row["row"][0].as_py())
    name = "request_id" if "request_id" in one.column_names else "request_key"
    return InputError(
        f"{job.place_of(two['row'][0].as_py())}: impressions, column request_id: a "
        f"request of two {what}, see {job.place_of(one['row'][0].as_py())}; give each "
        f"request an id of its own, or leave the column out. Received: "
        f"{two[name][0].as_py()!r}"
    )


def _request_keys(table):
    """The keys of a shard's requests, spread evenly over uint64, `[N]`, and the rows.

    pandas' hash of 64 bits maps no two numbers to one.
    """
    keys = table["request_key"].to_numpy()
    rows = np.arange(len(table))
    if "split" in table.column_names:
        rows = np.flatnonzero(table["split"].to_numpy() != ALL_SPLITS.index("history"))
    return pd.util.hash_array(keys[rows]), rows


def leave_keys(job, shard):
    """Leaves the sorted keys of a shard's requests in `request_keys/<shard>.npy`."""
    table = read_shard(job, shard)
    keys = np.zeros(0, np.uint64) if table is None else _request_keys(table)[0]
    path = job.work / "request_keys" / f"{shard:05d}.npy"
    with new_file(path, lasting=False) as temporary:
        with open(temporary, "wb") as handle:
            np.save(handle, np.unique(keys))


def check_across(job, number):
    """Step after the count: no id of range `number` is in two shards.

    Users are dealt to shards, so such an id is of two users.
    """
    width = -(-(2**64) // num_ranges(job))
    last = min((number + 1) * width, 2**64) - 1
    first, last = np.uint64(number * width), np.uint64(last)
    found = []
    for path in sorted((job.work / "request_keys").glob("*.npy")):
        keys = np.load(path, mmap_mode="r")
        begin = np.searchsorted(keys, first)
        found.append(keys[begin : np.searchsorted(keys, last, side="right")])
    keys = np.sort(np.concatenate(found))
    twice = keys[1:][keys[1:] == keys[:-1]]
    rows = _rows_of_one_id(job, twice) if len(twice) else None
    if rows is not None:
        raise _error(job, "users", rows)


def _rows_of_one_id(job, keys):
    """Rows of two shards that have one id, `None` if each of these keys has several."""
    rows = {}
    for shard in range(job.num_shards):
        table = read_shard(job, shard)
        if table is None:
            continue
        found, places = _request_keys(table)
        table = table.take(pa.array(places[np.isin(found, keys)]))
        name = "request_id" if "request_id" in table.column_names else "request_key"
        of_shard = {}
        for row, value in enumerate(table[name].to_pylist()):
            of_shard.setdefault(value, table.slice(row, 1))
        again = next((value for value in of_shard if value in rows), None)
        if again is not None:
            return [rows[again], of_shard[again]]
        rows |= of_shard
    return None
