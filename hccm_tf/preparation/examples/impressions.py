"""Checks a click log batch by batch and brings its columns into the types used here."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from etils import epy

from hccm_tf.data import ids
from hccm_tf.data.feature import HISTORY, MISSING
from hccm_tf.errors import InputError
from hccm_tf.preparation.tables import read_batches

with epy.lazy_imports():
    import tensorflow as tf

SPLITS = ("train", "validation", "test")
ALL_SPLITS = (*SPLITS, "history")
LISTED_BAD_ROWS = 20
HISTORY_ITEM = HISTORY + "item_id"
# The types of columns from here on, as features call them.
FEATURE_DTYPES = {pa.int64(): "int64", pa.float32(): "float32", pa.string(): "string"}
CHECKED = ("label", "timestamp", "split", HISTORY_ITEM)


def log_type(name, dtype):
    """The type that a raw column has from here on: int64, float32 or string.

    Raises:
        InputError: if it can be none of them.
    """
    if name in ("user_id", "item_id") and (
        pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)
    ):
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


CHECKS = {
    "label": (_labels, "a label is 0 or 1"),
    "timestamp": (_seconds, "not a time in seconds"),
    "split": (_splits, f"a split is one of {ALL_SPLITS}"),
}


def _history_rows(column, item_keys):
    """Ready-made histories of item ids as rows of the catalogue, unknown ones out."""
    flat = to_log_type("item_id", column.flatten())
    rows = find_keys(item_keys, column_keys(flat))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    known = np.concatenate([[0], np.cumsum(rows >= 0)])
    offsets = known[np.concatenate([[0], np.cumsum(lengths)])]
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(rows[rows >= 0], pa.int32())
    )


class LogReader:
    """Reads the pieces of a log, checks their rows and counts what is left out.

    Args:
        types: name → Arrow type of the log's columns.
        item_keys: int64, sorted keys of the catalogue's items.
        max_bad_rows: number of bad rows to skip before one is an error.

    Attributes:
        counts: dict `rows` (read), `bad_row`, `unknown_item` (left out).
        bad_rows: descriptions of the first bad rows.
    """

    def __init__(self, types, item_keys, max_bad_rows):
        self.types = types
        self.item_keys = item_keys
        self.max_bad_rows = max_bad_rows
        self.counts = {"rows": 0, "bad_row": 0, "unknown_item": 0}
        self.bad_rows = []

    def _bad_row(self, problem, count=1):
        self.counts["bad_row"] += count
        if len(self.bad_rows) < LISTED_BAD_ROWS:
            self.bad_rows.append(problem)

    def _check_count(self):
        check_bad_rows(self.counts["bad_row"], self.bad_rows, self.max_bad_rows)

    def read(self, piece):
        """Yields Arrow tables of a piece's good rows of known items.

        Their columns are `user_key`, `item_row` (row of the catalogue), those of
        `CHECKED` that the log has, and the attributes in their `log_type`.
        """

        def on_bad_row(row):
            self.counts["rows"] += 1
            self._bad_row(
                f"{piece.file}: line {row.number}: {row.actual_columns} fields instead "
                f"of {row.expected_columns}. Received: {row.text[:80]}"
            )
            return "skip"

        try:
            for first_row, batch in read_batches(piece, self.types, on_bad_row):
                self.counts["rows"] += len(batch)
                table = self._check(piece.file, first_row, batch)
                self._check_count()
                yield table
            self._check_count()
        except (InputError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            name = "" if str(error).startswith(piece.file) else f"{piece.file}: "
            raise InputError(f"{name}{error}") from error

    def _check(self, file, first_row, batch):
        good = np.ones(len(batch), bool)

        def check(name, bad, problem):
            bad = bad & good
            if bad.any():
                row = int(np.argmax(bad))
                self._bad_row(
                    f"{file}: impressions, column {name}, row {first_row + row + 1}: "
                    f"{problem}. Received: {batch[name][row].as_py()!r}",
                    int(bad.sum()),
                )
                good[bad] = False

        columns = {}
        for name, (parse, problem) in CHECKS.items():
            if name in self.types:
                columns[name], bad = parse(batch[name])
                check(name, bad, problem)
        keys = {}
        for name in ("user_id", "item_id"):
            column = to_log_type(name, batch[name])
            empty = pc.equal(column, MISSING[FEATURE_DTYPES[column.type]])
            check(name, empty.to_numpy(zero_copy_only=False), "empty")
            keys[name] = column_keys(column)
        item_row = find_keys(self.item_keys, keys["item_id"])
        known = item_row >= 0
        self.counts["unknown_item"] += int((good & ~known).sum())
        table = {"user_key": keys["user_id"], "item_row": item_row.astype(np.int32)}
        table.update(columns)
        if HISTORY_ITEM in self.types:
            table[HISTORY_ITEM] = _history_rows(batch[HISTORY_ITEM], self.item_keys)
        for name in self.types:
            if name not in CHECKED and name != "item_id":
                table[name] = to_log_type(name, batch[name])
        return pa.table(table).filter(pa.array(good & known))


def check_bad_rows(count, bad_rows, max_bad_rows):
    """Raises `InputError` if there are more bad rows than may be skipped."""
    if count > max_bad_rows:
        raise InputError(
            f"{bad_rows[0]}; {count} bad rows so far: mend them, or allow more than "
            f"max_bad_rows={max_bad_rows}"
        )
