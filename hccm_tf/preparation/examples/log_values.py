"""Which columns a log may have, and the types that their values have from here on."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from etils import epy

from hccm_tf.data import ids
from hccm_tf.data.feature import HISTORY, MISSING
from hccm_tf.errors import InputError

with epy.lazy_imports():
    import tensorflow as tf

SPLITS = ("train", "validation", "test")
ALL_SPLITS = (*SPLITS, "history")
HISTORY_ITEM = HISTORY + "item_id"
# The types of columns from here on, as features call them.
FEATURE_DTYPES = {pa.int64(): "int64", pa.float32(): "float32", pa.string(): "string"}
CHECKED = ("label", "timestamp", "split", "weight", "request_id", HISTORY_ITEM)
IDS = ("user_id", "item_id", "request_id")


def log_type(name, dtype):
    """The type that a raw column has from here on: int64, float32 or string.

    Raises:
        InputError: if it can be none of them.
    """
    if name in IDS and (pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)):
        return pa.int64()
    if pa.types.is_integer(dtype) or pa.types.is_boolean(dtype):
        return pa.int64()
    if pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        return pa.float32()
    if pa.types.is_dictionary(dtype):
        return log_type(name, dtype.value_type)
    if (
        pa.types.is_string(dtype)
        or pa.types.is_large_string(dtype)
        or pa.types.is_null(dtype)
    ):
        return pa.string()
    raise InputError(
        f"column {name}: a column holds integers, numbers or text. Received: {dtype}"
    )


def to_log_type(name, column):
    """A column in its `log_type`, missing values as that type has them."""
    dtype = log_type(name, column.type)
    if dtype == pa.int64() and pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    try:
        column = column.cast(dtype)
    except pa.ArrowInvalid as error:
        raise InputError(f"column {name}: {error}") from error
    return column.fill_null(MISSING[FEATURE_DTYPES[dtype]])


def column_keys(column):
    """`hccm_tf.data.ids.to_keys` of an int64 or string Arrow column, int64 array."""
    if pa.types.is_integer(column.type):
        return column.to_numpy(zero_copy_only=False)
    distinct = column.dictionary_encode()
    texts = distinct.dictionary.cast(pa.binary()).to_numpy(zero_copy_only=False)
    keys = ids.to_keys(tf.constant(texts, tf.string)).numpy()
    return keys[distinct.indices.to_numpy(zero_copy_only=False)]


def find_keys(sorted_keys, keys):
    """Places of keys among sorted ones, int64, −1 where a key does not occur."""
    if not len(sorted_keys):
        return np.full(len(keys), -1)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[place] == keys, place, -1)


def find_items(items, column):
    """Rows of the catalogue of some item ids, int64, −1 of those that it lacks.

    Args:
        items: Arrow table with `item_id` and, sorted, its `key`.
        column: Arrow array of ids, int64 or string.
    """
    sorted_keys = items["key"].to_numpy()
    if pa.types.is_integer(column.type):
        return find_keys(sorted_keys, column.to_numpy(zero_copy_only=False))
    distinct = column.dictionary_encode()
    texts = distinct.dictionary
    keys = column_keys(texts)
    place, rows = find_keys(sorted_keys, keys), np.full(len(texts), -1)
    left = np.flatnonzero(place >= 0)
    # Ids of one key stand side by side; nearly always there is one.
    while left.size:
        same = pc.equal(items["item_id"].take(place[left]), texts.take(left))
        same = same.to_numpy()
        rows[left[same]] = place[left[same]]
        left = left[~same]
        place[left] += 1
        left = left[place[left] < len(sorted_keys)]
        left = left[sorted_keys[place[left]] == keys[left]]
    return rows[distinct.indices.to_numpy(zero_copy_only=False)]


def _numbers(column):
    """A column as float64, NaN where it is none."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = pd.to_numeric(column.to_pandas(), errors="coerce")
        return values.to_numpy(np.float64, na_value=np.nan)
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _seconds(column):
    """Timestamps as int64 seconds, and which of them are none."""
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.timestamp("s", "UTC"), safe=False).cast(pa.int64())
    if pa.types.is_integer(column.type):
        bad = column.is_null().to_numpy(zero_copy_only=False)
        return column.fill_null(0).cast(pa.int64()).to_numpy(), bad
    values = _numbers(column)
    bad = ~(np.abs(values) < 2.0**62)
    return np.where(bad, 0, values).astype(np.int64), bad


def _labels(column):
    values = _numbers(column)
    bad = ~np.isin(values, (0, 1))
    return np.where(bad, 0, values).astype(np.int8), bad


def _splits(column):
    codes = pc.index_in(column.cast(pa.string()), pa.array(ALL_SPLITS))
    bad = codes.is_null().to_numpy(zero_copy_only=False)
    return codes.fill_null(0).cast(pa.int8()).to_numpy(), bad


def _weights(column):
    # What no float32 holds is infinite, and no weight.
    with np.errstate(over="ignore"):
        values = _numbers(column).astype(np.float32)
    bad = ~(np.isfinite(values) & (values >= 0))
    return np.where(bad, np.float32(0), values), bad


CHECKS = {
    "label": (_labels, "a label is 0 or 1"),
    "timestamp": (_seconds, "not a time in seconds"),
    "split": (_splits, f"a split is one of {ALL_SPLITS}"),
    "weight": (_weights, "a weight is a finite number, 0 or more"),
}


def history_rows(column, items):
    """Ready-made histories of item ids as rows of the catalogue, unknown ones out."""
    flat = to_log_type("item_id", column.flatten())
    rows = find_items(items, flat)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    known = np.concatenate([[0], np.cumsum(rows >= 0)])
    offsets = known[np.concatenate([[0], np.cumsum(lengths)])]
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(rows[rows >= 0], pa.int32())
    )
