"""Serialises requests as `tf.train.Example`s.

A record is three messages one after the other, which is one merged message: what the
request has once, lists of its candidates, and its history.
"""

import functools

import pyarrow as pa
from etils import epy

from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.parsing import OF_CANDIDATES, OPTIONAL_OF_CANDIDATES

with epy.lazy_imports():
    import tensorflow as tf

CACHED_HISTORIES = 1 << 15
LISTS = {"int64": "int64_list", "float32": "float_list", "string": "bytes_list"}


def request_dtypes(schema):
    """Columns that every record has once: name → dtype."""
    scalars = [feature for feature in schema.scalars if not feature.candidate]
    return {"user_key": "int64", **{f.name: f.dtype for f in scalars}}


def candidate_dtypes(job, schema):
    """Columns of every record that are lists of its candidates: name → dtype."""
    optional = OPTIONAL_OF_CANDIDATES.items()
    dtypes = OF_CANDIDATES | {n: dtype for n, dtype in optional if n in job.types}
    return dtypes | {f.name: f.dtype for f in schema.scalars if f.candidate}


def sequence_dtypes(schema):
    """Histories of every record: name → dtype."""
    dtypes = {HISTORY_IMAGE: "int64"}
    dtypes.update({f.name: f.dtype for f in schema.sequences})
    return dtypes


def to_list(column):
    """Python values as protobuf takes them: strings as bytes."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_string(column.type):
        return column.cast(pa.binary()).to_pylist()
    return column.to_numpy(zero_copy_only=False).tolist()


def _message(dtypes):
    """A message, and the lists of its features, to fill it anew for each record.

    To make a message for each record takes over twice as long.
    """
    example = tf.train.Example()
    features = example.features.feature
    return example, [getattr(features[n], LISTS[d]).value for n, d in dtypes.items()]


def history_serializer(schema, columns):
    """Function from a slice of the histories' columns to a serialised message."""
    dtypes = sequence_dtypes(schema)
    example, targets = _message(dtypes)
    sources = [columns[name] for name in dtypes]

    # Requests between two clicks of a user have the same history.
    @functools.lru_cache(CACHED_HISTORIES)
    def serialize(first, last):
        for target, values in zip(targets, sources, strict=True):
            target[:] = values[first:last]
        # Maps have no order of their own: without this, runs differ in bytes.
        return example.SerializeToString(deterministic=True)

    return serialize


def serialize_single(dtypes, columns):
    """Yields a message for each row of some columns.

    Args:
        dtypes: name → dtype.
        columns: list of lists `[R]`, of these names.
    """
    example, targets = _message(dtypes)
    for target, dtype in zip(targets, dtypes.values(), strict=True):
        target.append(b"" if dtype == "string" else 0)
    for row in zip(*columns, strict=True):
        for target, value in zip(targets, row, strict=True):
            target[0] = value
        yield example.SerializeToString(deterministic=True)


def serialize_lists(dtypes, columns, bounds):
    """Yields a message for each slice of some columns.

    Args:
        dtypes: name → dtype.
        columns: list of lists `[M]`, of these names.
        bounds: list `[R + 1]`, where the slices begin, and the end of the last one.
    """
    example, targets = _message(dtypes)
    pairs = list(zip(targets, columns, strict=True))
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        for target, values in pairs:
            target[:] = values[first:last]
        yield example.SerializeToString(deterministic=True)
