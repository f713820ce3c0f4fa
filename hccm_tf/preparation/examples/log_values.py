"""Which columns a log may have, and the types that their values have from here on."""

import contextlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from etils import epy

from hccm_tf.data import ids
from hccm_tf.data.feature import HISTORY, MISSING
from hccm_tf.errors import InputError
from hccm_tf.preparation.text import to_text

with epy.lazy_imports():
    import tensorflow as tf

SPLITS = ("train", "validation", "test")
ALL_SPLITS = (*SPLITS, "history")
HISTORY_ITEM = HISTORY + "item_id"
FRACTION = "timestamp_fraction"  # of a second, in nanoseconds: what `timestamp` lost
# The types of columns from here on, as features call them.
FEATURE_DTYPES = {pa.int64(): "int64", pa.float32(): "float32", pa.string(): "string"}
CHECKED = ("label", "timestamp", "split", "weight", "request_id", HISTORY_ITEM)
IDS = ("user_id", "item_id", "request_id")
# What nanoseconds of 64 bits hold begins in 1677.
EARLIEST = -9_214_560_000  # 1678-01-01, in seconds
LATEST = 4_102_444_800  # 2100-01-01
# As Arrow reads dates from CSV. Without it, pandas takes `now` and `2024-05` too.
DATE = r"^\d{4}-\d{2}-\d{2}($|[T ])"
UNITS = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
PROBLEMS = {
    pa.int64(): "no integer of 63 bits and a sign, or one that a float rounded",
    pa.float32(): "no number, or one that is not finite with 32 bits",
    pa.string(): "no text",
}


def convert(name, column, dtype):
    """A column in another type, missing values as that type has them.

    Args:
        name: of the column.
        column: Arrow array.
        dtype: one of `FEATURE_DTYPES`.

    Returns:
        `(column, bad)`: bool `[N]`, which values the type does not hold; they are
        missing then. No float32 holds an infinity, and no integer what a float has
        rounded.

    Raises:
        InputError: if the type holds nothing of the kind.
    """
    bad = np.zeros(len(column), bool)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
        if dtype != pa.string():
            column = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(column, ""), None, column)
    elif pa.types.is_floating(column.type):
        bits = np.finfo(column.type.to_pandas_dtype()).nmant + 1
        column = pc.if_else(pc.is_nan(column), None, column)
        if dtype == pa.int64():
            bad |= _true(pc.greater_equal(pc.abs(column), 2.0**bits))
    if bad.any():
        column = pc.if_else(pa.array(bad), None, column)
    try:
        converted = _cast(column, dtype)
    except pa.ArrowInvalid:
        bad |= np.array([not _fits(value, dtype) for value in column])
        converted = _cast(pc.if_else(pa.array(bad), None, column), dtype)
    except pa.ArrowNotImplementedError as error:
        raise InputError(
            f"column {name}: {column.type} cannot become {dtype}; leave it out, or "
            "write it as text or numbers"
        ) from error
    if dtype == pa.float32():
        bad |= _true(pc.is_inf(converted))
    return converted.fill_null(MISSING[FEATURE_DTYPES[dtype]]), bad


def _cast(column, dtype):
    if dtype == pa.string():
        return to_text(column)
    # An integer of many digits may lose some as a float, not the other way round.
    return column.cast(dtype, safe=dtype != pa.float32() or _is_text(column.type))


def _fits(value, dtype):
    try:
        _cast(pa.array([value.as_py()], value.type), dtype)
    except pa.ArrowInvalid:
        return False
    return True


def _is_text(dtype):
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype)


def _true(column):
    """Arrow's bools as NumPy's, false where null."""
    return column.fill_null(False).to_numpy(zero_copy_only=False)


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
    if _is_text(column.type):
        values = pd.to_numeric(column.to_pandas(), errors="coerce")
        return values.to_numpy(np.float64, na_value=np.nan)
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def seconds(column):
    """Times as seconds and the fractions of them, and which of the times are none.

    Args:
        column: Arrow array of times or of seconds since 1970, or of text of either; a
            time without a zone is one of UTC.

    Returns:
        `(seconds, fraction, bad)`: int64 `[N]`; int32 `[N]`, nanoseconds; bool `[N]`.
    """
    if _is_text(column.type):
        return _seconds_of_text(column)
    if pa.types.is_temporal(column.type):
        unit = getattr(column.type, "unit", "s")
        ticks = column.cast(pa.timestamp(unit, "UTC")).cast(pa.int64())
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    elif pa.types.is_integer(column.type) and not pa.types.is_uint64(column.type):
        ticks, per_second = column.cast(pa.int64()), 1
    else:
        values = _numbers(column)
        bad = ~((values >= EARLIEST) & (values < LATEST))
        whole = np.floor(np.where(bad, 0, values))
        # A float of today has seven digits behind the point.
        fraction = np.where(bad, 0, (values - whole) * 1e9)
        return whole.astype(np.int64), fraction.astype(np.int32), bad
    bad = ticks.is_null().to_numpy(zero_copy_only=False)
    whole, rest = np.divmod(ticks.fill_null(0).to_numpy(), per_second)
    bad |= (whole < EARLIEST) | (whole >= LATEST)
    return whole, (rest * (10**9 // per_second)).astype(np.int32), bad


def _seconds_of_text(column):
    """`seconds` of text."""
    column = pc.utf8_trim_whitespace(column)
    for zone in (None, "UTC"):
        dtype = pa.timestamp("ns", zone)
        with contextlib.suppress(pa.ArrowInvalid):
            column[:1].cast(dtype)  # Of many, Arrow takes its time to refuse each.
            return seconds(column.cast(dtype))
    return _seconds_one_by_one(column)


def _seconds_one_by_one(column):
    """`seconds` of text of which Arrow takes some for no date: slow."""
    is_date = _true(pc.match_substring_regex(column, DATE))
    numbers = _numbers(pc.if_else(pa.array(is_date), None, column))
    found = seconds(pa.array(numbers))
    dates = column.filter(pa.array(is_date)).to_pandas()
    dates = pd.to_datetime(dates, format="ISO8601", errors="coerce", utc=True)
    dates = pa.array(dates.dt.tz_convert(None))
    for values, of_dates in zip(found, seconds(dates), strict=True):
        values[is_date] = of_dates
    return found


def has_fractions(dtype):
    """Whether times of an Arrow type may be between two seconds."""
    whole = pa.types.is_date(dtype) or pa.types.is_integer(dtype)
    return not whole and getattr(dtype, "unit", "") != "s"


def problem_of_time(value):
    """What is wrong with a timestamp, a Python value: its unit, where that shows."""
    problem = (
        "not a time: seconds since 1970, or a date such as 2024-05-31 or "
        "2024-05-31T18:30:00Z, from 1678 on and before the year 2100"
    )
    try:
        number = float(value)
    except (TypeError, ValueError):
        return problem
    for unit, factor in UNITS.items():
        if LATEST <= number < LATEST * factor:
            return f"{problem}; of {unit}, divide by {factor}"
    return problem


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
    "split": (_splits, f"a split is one of {ALL_SPLITS}"),
    "weight": (_weights, "a weight is a finite number, 0 or more"),
}


def history_rows(column, items, dtype):
    """Ready-made histories of item ids as rows of the catalogue, unknown ones out.

    Args:
        column: Arrow array of lists.
        items: Arrow table of the catalogue, see `find_items`.
        dtype: type of item ids.

    Returns:
        `(rows, unknown)`: Arrow array of lists of int32; Arrow array of the ids that
        the catalogue lacks, which are not missing.
    """
    flat, bad = convert(HISTORY_ITEM, column.flatten(), dtype)
    rows = find_items(items, flat)
    rows[bad] = -1
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    known = np.concatenate([[0], np.cumsum(rows >= 0)])
    offsets = known[np.concatenate([[0], np.cumsum(lengths)])]
    lists = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(rows[rows >= 0], pa.int32())
    )
    missing = pc.equal(flat, MISSING[FEATURE_DTYPES[dtype]])
    missing = missing.to_numpy(zero_copy_only=False)
    return lists, flat.filter(pa.array((rows < 0) & ~missing))
