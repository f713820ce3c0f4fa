"""Checks a click log batch by batch and brings its columns into the types used here."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hccm_tf.data.feature import MISSING
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.log_values import (
    ALL_SPLITS,
    CHECKS,
    FEATURE_DTYPES,
    FRACTION,
    HISTORY_ITEM,
    IDS,
    PROBLEMS,
    column_keys,
    convert,
    find_items,
    has_fractions,
    history_rows,
    problem_of_time,
    seconds,
)
from hccm_tf.preparation.tables import read_batches
from hccm_tf.progress import advance

LISTED_BAD_ROWS = 20
LISTED_UNKNOWN = 5
COUNTS = ("rows", "bad_row", "unknown_item", "history_items", "unknown_history_items")


class LogReader:
    """Reads the pieces of a log, checks their rows and counts what is left out.

    Args:
        types: name → Arrow type of the log's columns, as they are read.
        columns: name → type of its ids and attributes, as they become.
        items: Arrow table of the catalogue, see `find_items`.
        max_bad_rows: number of bad rows to skip before one is an error.

    Attributes:
        counts: dict `rows` (read), `bad_row`, `unknown_item` (left out); of ready-made
            histories `history_items` and, left out, `unknown_history_items`.
        bad_rows: descriptions of the first bad rows.
        unknown: the first items that the catalogue lacks, list of str.
    """

    def __init__(self, types, columns, items, max_bad_rows):
        self.types = types
        self.columns = columns
        self.items = items
        self.max_bad_rows = max_bad_rows
        self.counts = dict.fromkeys(COUNTS, 0)
        self.bad_rows = []
        self.unknown = []
        self._bad_lines = []

    def _bad_row(self, problem, count=1):
        self.counts["bad_row"] += count
        if len(self.bad_rows) < LISTED_BAD_ROWS:
            self.bad_rows.append(problem)

    def _check_count(self):
        check_bad_rows(self.counts["bad_row"], self.bad_rows, self.max_bad_rows)

    def read(self, piece):
        """Yields Arrow tables of a piece's good rows of known items.

        Their columns are `row` (number in the piece, bad rows counted), `user_key`,
        `item_row` (row of the catalogue), those of `CHECKED` that the log has, with the
        key of a `request_id` as `request_key` and what is cut from a `timestamp` as
        `FRACTION`, and the attributes in their type of `columns`.
        """
        self._bad_lines = []

        def on_bad_row(row):
            self.counts["rows"] += 1
            # Arrow counts from 1, and the header too.
            self._bad_lines.append(row.number - 2)
            self._bad_row(
                f"{piece.file}: line {row.number}: {row.actual_columns} fields instead "
                f"of {row.expected_columns}. Received: {row.text[:80]}"
            )
            return "skip"

        try:
            for first_row, batch in read_batches(piece, self.types, on_bad_row):
                self.counts["rows"] += len(batch)
                row = self._row_numbers(first_row - piece.first_row, len(batch))
                table = self._check(piece, batch, row)
                self._check_count()
                yield table
                advance(len(batch))
            self._check_count()
        except (InputError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            name = "" if str(error).startswith(piece.file) else f"{piece.file}: "
            raise InputError(f"{name}{error}") from error

    def _row_numbers(self, first, count):
        """Numbers of rows of a piece, known by their places among the readable ones."""
        place = first + np.arange(count)
        readable_before = np.array(self._bad_lines, np.int64)
        readable_before -= np.arange(len(readable_before))
        return place + np.searchsorted(readable_before, place, side="right")

    def _check(self, piece, batch, row):
        good = np.ones(len(batch), bool)

        def check(name, bad, problem):
            bad = bad & good
            if bad.any():
                place = int(np.argmax(bad))
                received = batch[name][place].as_py()
                if callable(problem):
                    problem = problem(received)
                self._bad_row(
                    f"{piece.file}: impressions, column {name}, row "
                    f"{piece.first_row + row[place] + 1}: {problem}. Received: "
                    f"{received!r}",
                    int(bad.sum()),
                )
                good[bad] = False

        table = {"row": row}
        for name, (parse, problem) in CHECKS.items():
            if name in self.types:
                table[name], bad = parse(batch[name])
                check(name, bad, problem)
        if "timestamp" in self.types:
            table["timestamp"], fraction, bad = seconds(batch["timestamp"])
            check("timestamp", bad, problem_of_time)
            if has_fractions(self.types["timestamp"]):
                table[FRACTION] = fraction
        columns = {}
        for name, dtype in self.columns.items():
            columns[name], bad = convert(name, batch[name], dtype)
            check(name, bad, PROBLEMS[dtype])
            if name in IDS:
                check(name, _empty(name, columns[name], table.get("split")), "empty")
        item_id = columns.pop("item_id")
        item_row = find_items(self.items, item_id)
        unknown = good & (item_row < 0)
        self.counts["unknown_item"] += int(unknown.sum())
        self._list_unknown(item_id.filter(pa.array(unknown)))
        table["user_key"] = column_keys(columns["user_id"])
        table["item_row"] = item_row.astype(np.int32)
        if "request_id" in columns:
            request_id = columns.pop("request_id")
            table["request_key"] = column_keys(request_id)
            if pa.types.is_string(request_id.type):
                table["request_id"] = request_id
        if HISTORY_ITEM in self.types:
            table[HISTORY_ITEM] = self._histories(batch[HISTORY_ITEM])
        return pa.table(table | columns).filter(pa.array(good & ~unknown))

    def _histories(self, column):
        dtype = self.columns["item_id"]
        rows, unknown = history_rows(column, self.items, dtype)
        self.counts["history_items"] += len(rows.values) + len(unknown)
        self.counts["unknown_history_items"] += len(unknown)
        self._list_unknown(unknown)
        return rows

    def _list_unknown(self, items):
        rest = LISTED_UNKNOWN - len(self.unknown)
        if rest and len(items):
            found = map(repr, items.unique().to_pylist())
            self.unknown += [item for item in found if item not in self.unknown][:rest]


def _empty(name, column, split):
    """Which of the ids of a column are missing, bool `[N]`."""
    empty = pc.equal(column, MISSING[FEATURE_DTYPES[column.type]])
    empty = empty.to_numpy(zero_copy_only=False)
    if name == "request_id" and split is not None:
        # What only feeds histories was perhaps no request.
        empty = empty & (split != ALL_SPLITS.index("history"))
    return empty


def check_bad_rows(count, bad_rows, max_bad_rows):
    """Raises `InputError` if there are more bad rows than may be skipped."""
    if count > max_bad_rows:
        raise InputError(
            f"{bad_rows[0]}; {count} bad rows so far: mend them, or allow more than "
            f"max_bad_rows={max_bad_rows}"
        )
