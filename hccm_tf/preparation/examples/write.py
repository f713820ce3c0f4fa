"""Joins the histories of a shard's users and writes its `tf.train.Example`s."""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epy

from hccm_tf.atomic import new_file
from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.folder import DataFolder
from hccm_tf.preparation.examples.fit_schema import feature_values, fitted_schema
from hccm_tf.preparation.examples.histories import point_in_time
from hccm_tf.preparation.examples.impressions import ALL_SPLITS, HISTORY_ITEM
from hccm_tf.preparation.examples.job import write_json
from hccm_tf.preparation.examples.shards import column_of, load_shard

with epy.lazy_imports():
    import tensorflow as tf

SLICE_ROWS = 8_192
CACHED_HISTORIES = 1 << 15
ALWAYS = ("label", "timestamp", "user_key", "image")
LISTS = {"int64": "int64_list", "float32": "float_list", "string": "bytes_list"}


def scalar_dtypes(job, schema):
    """Columns of every example that are no histories: name → dtype."""
    names = [name for name in ALWAYS if name != "timestamp" or name in job.types]
    dtypes = dict.fromkeys(names, "int64")
    dtypes.update({feature.name: feature.dtype for feature in schema.scalars})
    return dtypes


def sequence_dtypes(schema):
    """Histories of every example: name → dtype."""
    dtypes = {HISTORY_IMAGE: "int64"}
    dtypes.update({f.name: f.dtype for f in schema.sequences})
    return dtypes


def _to_list(column):
    """Python values as protobuf takes them: strings as bytes."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_string(column.type):
        return column.cast(pa.binary()).to_pylist()
    return column.to_numpy(zero_copy_only=False).tolist()


def _histories(job, table, schema):
    """The slices of every impression's history and the columns they are slices of.

    Returns:
        `(begin, end, columns)`: int64 `[N]` each and name → list.
    """
    if HISTORY_ITEM in job.types:
        ready = table[HISTORY_ITEM].combine_chunks()
        offsets = ready.offsets.to_numpy().astype(np.int64)
        begin, end = offsets[:-1], offsets[1:]
        begin = np.maximum(begin, end - schema.max_history)
        item_row, clicks = ready.values.to_numpy(), None
    else:
        users, times = table["user_key"].to_numpy(), table["timestamp"].to_numpy()
        clicks = np.flatnonzero(table["label"].to_numpy() == 1)
        order, begin, end = point_in_time(
            users[clicks], times[clicks], users, times, schema.max_history
        )
        clicks = clicks[order]
        item_row = table["item_row"].to_numpy()[clicks]
    columns = {}
    shared = {HISTORY_IMAGE: "image"} | {f.name: f.shares for f in schema.sequences}
    for name, source in shared.items():
        if source in job.items.column_names:
            column = pc.take(job.items[source], item_row)
        else:
            column = table[source].take(clicks)
        columns[name] = _to_list(column)
    return begin, end, columns


def _value_lists(example, dtypes):
    """The lists of a message's features, to fill it anew for each record.

    To make a message for each record takes over twice as long.
    """
    return [
        getattr(example.features.feature[name], LISTS[dtype]).value
        for name, dtype in dtypes.items()
    ]


def _history_serializer(schema, columns):
    """Function from a slice of the histories' columns to a serialised message."""
    example = tf.train.Example()
    targets = _value_lists(example, sequence_dtypes(schema))
    sources = [columns[name] for name in sequence_dtypes(schema)]

    # Impressions between two clicks of a user have the same history.
    @functools.lru_cache(CACHED_HISTORIES)
    def serialize(first, last):
        for target, values in zip(targets, sources, strict=True):
            target[:] = values[first:last]
        # Maps have no order of their own: without this, runs differ in bytes.
        return example.SerializeToString(deterministic=True)

    return serialize


def _write_shard(path, job, schema, table, histories):
    """Writes the rows of a table as one shard and returns its number of bytes.

    Args:
        path: file to write.
        job: `Job`.
        schema: `Schema`.
        table: its rows.
        histories: `(begin, end, serialize)`: int64 slices of these rows' histories and
            what makes messages of them.
    """
    begin, end, serialize_history = histories
    dtypes = scalar_dtypes(job, schema)
    example = tf.train.Example()
    targets = _value_lists(example, dtypes)
    for target, dtype in zip(targets, dtypes.values(), strict=True):
        target.append(b"" if dtype == "string" else 0)
    num_bytes = 0
    with new_file(path) as file, tf.io.TFRecordWriter(str(file)) as writer:
        for start in range(0, len(table), SLICE_ROWS):
            rows = table.slice(start, SLICE_ROWS)
            columns = []
            for name in dtypes:
                column = column_of(job, rows, name)
                if name in schema:
                    column = feature_values(schema[name], column)
                columns.append(_to_list(column))
            stop = start + len(rows)
            for first, last, *values in zip(
                begin[start:stop].tolist(),
                end[start:stop].tolist(),
                *columns,
                strict=True,
            ):
                for target, value in zip(targets, values, strict=True):
                    target[0] = value
                # Serialised messages one after the other are one merged message.
                record = example.SerializeToString(
                    deterministic=True
                ) + serialize_history(first, last)
                num_bytes += len(record)
                writer.write(record)
    return num_bytes


def write(job, shard):
    """Last step: writes the shard of this number of every split.

    Leaves `written/<shard>.json`: split → rows and bytes, and what was left out.
    """
    schema = fitted_schema(job)
    loaded = load_shard(job, shard)
    left_out, history_rows, written = 0, 0, {}
    if loaded is not None:
        table, split, left_out = loaded
        history_rows = int((split == ALL_SPLITS.index("history")).sum())
        begin, end, columns = _histories(job, table, schema)
        serialize = _history_serializer(schema, columns)
    for name in job.options.splits:
        path = DataFolder(job.output).shard_file(name, shard, job.num_shards)
        if loaded is None:
            with new_file(path) as file:
                tf.io.TFRecordWriter(str(file)).close()
            written[name] = 0, 0
            continue
        rows = np.flatnonzero(split == ALL_SPLITS.index(name))
        if name == "train":
            rows = np.random.default_rng((job.seed, shard)).permutation(rows)
        histories = begin[rows], end[rows], serialize
        num_bytes = _write_shard(path, job, schema, table.take(rows), histories)
        written[name] = len(rows), num_bytes
    write_json(
        job.work / "written" / f"{shard:05d}.json",
        {"splits": written, "negatives": left_out, "history_rows": history_rows},
    )
