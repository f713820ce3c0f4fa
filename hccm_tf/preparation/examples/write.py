"""Joins the histories of a shard's users and writes its requests."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epy

from hccm_tf.atomic import new_file
from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.folder import DataFolder
from hccm_tf.preparation.examples.fit_schema import fitted_schema
from hccm_tf.preparation.examples.histories import point_in_time
from hccm_tf.preparation.examples.job import write_json
from hccm_tf.preparation.examples.log_values import ALL_SPLITS, FRACTION, HISTORY_ITEM
from hccm_tf.preparation.examples.max_candidates import max_candidates
from hccm_tf.preparation.examples.records import (
    candidate_dtypes,
    history_serializer,
    request_dtypes,
    serialize_lists,
    serialize_single,
    to_list,
)
from hccm_tf.preparation.examples.shards import column_of, load_shard
from hccm_tf.progress import advance

with epy.lazy_imports():
    import tensorflow as tf

SLICE_ROWS = 8_192


def _histories(job, loaded, schema):
    """The slices of every row's history and the columns they are slices of.

    Returns:
        `(begin, end, columns)`: int64 `[N]` each and name → list.
    """
    table = loaded.table
    if HISTORY_ITEM in job.types:
        ready = table[HISTORY_ITEM].combine_chunks()
        offsets = ready.offsets.to_numpy().astype(np.int64)
        begin, end = offsets[:-1], offsets[1:]
        begin = np.maximum(begin, end - schema.max_history)
        item_row, clicks = ready.values.to_numpy(), None
    else:
        users, times = table["user_key"].to_numpy(), table["timestamp"].to_numpy()
        clicks = np.flatnonzero(table["label"].to_numpy() == 1)
        fractions = None
        if FRACTION in table.column_names:
            fractions = table[FRACTION].to_numpy()[clicks]
        order, begin, end = point_in_time(
            *(users[clicks], times[clicks], users, loaded.time),
            schema.max_history,
            fractions,
        )
        clicks = clicks[order]
        item_row = table["item_row"].to_numpy()[clicks]
    columns = {}
    shared = {HISTORY_IMAGE: "image"} | {f.name: f.shares for f in schema.sequences}
    # What clicks of an item share is one Python object: histories may be long.
    item_row, place = np.unique(item_row, return_inverse=True)
    for name, source in shared.items():
        if source in job.items.column_names:
            values = to_list(pc.take(job.items[source], item_row))
            columns[name] = np.array(values, object)[place].tolist()
        else:
            columns[name] = to_list(table[source].take(clicks))
    return begin, end, columns


def cut_requests(loaded, split, most):
    """The records of a split: its requests, cut where they are long.

    Args:
        loaded: `Shard`.
        split: name of the split.
        most: number of candidates of a record at most.

    Returns:
        `(rows, begin, size)`: the split's rows, those of a record adjacent and in the
        log's order, and the slices of them that are records, in the order of their
        requests' first rows.
    """
    rows = np.flatnonzero(loaded.split == ALL_SPLITS.index(split))
    rows = rows[np.argsort(loaded.request[rows], kind="stable")]
    request, place = loaded.request[rows], np.arange(len(rows))
    is_first = np.ones(len(rows), bool)
    is_first[1:] = request[1:] != request[:-1]
    first = np.maximum.accumulate(np.where(is_first, place, 0))
    begin = np.flatnonzero((place - first) % most == 0)
    return rows, begin, np.diff(begin, append=len(rows))


def _lists(job, table, rows, names):
    """Columns of some rows as lists."""
    of_log = [name for name in (*names, "item_row") if name in table.column_names]
    table = table.select(of_log).take(pa.array(rows))
    return [to_list(column_of(job, table, name)) for name in names]


def _messages(job, schema, table, rows, size):
    """Yields all of each record but its history, in slices of the records.

    Args:
        job: `Job`.
        schema: `Schema`.
        table: Arrow table of a shard.
        rows: int64 `[M]`, the records' rows, one record after the other.
        size: int64 `[R]`, the records' numbers of rows.
    """
    once, lists = request_dtypes(schema), candidate_dtypes(job, schema)
    if size.max() == 1:
        # One value is set faster than a list of one.
        both = once | lists
        yield from serialize_single(both, _lists(job, table, rows, both))
        return
    bounds = np.concatenate([[0], np.cumsum(size)])
    columns = _lists(job, table, rows[bounds[:-1]], once)
    of_requests = serialize_single(once, columns)
    columns = _lists(job, table, rows, lists)
    of_candidates = serialize_lists(lists, columns, bounds.tolist())
    for request, candidates in zip(of_requests, of_candidates, strict=True):
        yield request + candidates


def _write_shard(path, job, schema, loaded, records, histories):
    """Writes records as one shard and returns its number of bytes.

    Args:
        path: file to write.
        job: `Job`.
        schema: `Schema`.
        loaded: `Shard`.
        records: of `cut_requests`, in the order in which to write them.
        histories: `(begin, end, serialize)`: int64 slices of all rows' histories and
            what makes messages of them.
    """
    rows, begin, size = records
    history_begin, history_end, serialize_history = histories
    num_bytes, slice_records = 0, max(1, SLICE_ROWS // max(size, default=1))
    whole = new_file(path, lasting=False)
    with whole as file, tf.io.TFRecordWriter(str(file)) as writer:
        for start in range(0, len(begin), slice_records):
            some = slice(start, start + slice_records)
            bounds = np.cumsum(size[some])
            places = np.repeat(begin[some] - bounds + size[some], size[some])
            inside = rows[places + np.arange(bounds[-1])]
            # All rows of a request have its history.
            first = rows[begin[some]]
            for message, oldest, newest in zip(
                _messages(job, schema, loaded.table, inside, size[some]),
                history_begin[first].tolist(),
                history_end[first].tolist(),
                strict=True,
            ):
                record = message + serialize_history(oldest, newest)
                num_bytes += len(record)
                writer.write(record)
            advance(len(inside))
    return num_bytes


def write(job, shard):
    """Last step: writes the shard of this number of every split.

    Leaves `written/<shard>.json`: split → records, bytes and impressions, and what was
    left out.
    """
    schema, most = fitted_schema(job), max_candidates(job)
    loaded = load_shard(job, shard)
    left_out, history_rows, written = 0, 0, {}
    if loaded is not None:
        left_out = loaded.left_out
        history_rows = int((loaded.split == ALL_SPLITS.index("history")).sum())
        begin, end, columns = _histories(job, loaded, schema)
        histories = begin, end, history_serializer(schema, columns)
    for name in job.options.splits:
        path = DataFolder(job.output).shard_file(name, shard, job.num_shards)
        if loaded is None:
            with new_file(path, lasting=False) as file:
                tf.io.TFRecordWriter(str(file)).close()
            written[name] = 0, 0, 0
            continue
        rows, begin, size = cut_requests(loaded, name, most)
        if name == "train":
            order = np.random.default_rng((job.seed, shard)).permutation(len(begin))
            begin, size = begin[order], size[order]
        records = rows, begin, size
        num_bytes = _write_shard(path, job, schema, loaded, records, histories)
        written[name] = len(begin), num_bytes, len(rows)
    write_json(
        job.work / "written" / f"{shard:05d}.json",
        {"splits": written, "negatives": left_out, "history_rows": history_rows},
    )
