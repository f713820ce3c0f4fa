"""Checks a click log batch by batch and brings its columns into the types used here."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hccm_tf.data.feature import MISSING
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.log_values import (
    ALL_SPLITS,
    CHECKED,
    CHECKS,
    FEATURE_DTYPES,
    HISTORY_ITEM,
    IDS,
    column_keys,
    find_items,
    history_rows,
    to_log_type,
)
from hccm_tf.preparation.tables import read_batches

LISTED_BAD_ROWS = 20


class LogReader:
    """Reads the pieces of a log, checks their rows and counts what is left out.

    Args:
        types: name → Arrow type of the log's columns.
        items: Arrow table of the catalogue, see `find_items`.
        max_bad_rows: number of bad rows to skip before one is an error.

    Attributes:
        counts: dict `rows` (read), `bad_row`, `unknown_item` (left out).
        bad_rows: descriptions of the first bad rows.
    """

    def __init__(self, types, items, max_bad_rows):
        self.types = types
        self.items = items
        self.max_bad_rows = max_bad_rows
        self.counts = {"rows": 0, "bad_row": 0, "unknown_item": 0}
        self.bad_rows = []
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
        key of a `request_id` as `request_key`, and the attributes in their `log_type`.
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
                table = self._check(piece.file, first_row, batch, row)
                self._check_count()
                yield table
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

    def _check(self, file, first_row, batch, row):
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
        for name in IDS:
            if name not in self.types:
                continue
            column = to_log_type(name, batch[name])
            empty = pc.equal(column, MISSING[FEATURE_DTYPES[column.type]])
            empty = empty.to_numpy(zero_copy_only=False)
            if name == "request_id" and "split" in columns:
                # What only feeds histories was perhaps no request.
                empty = empty & (columns["split"] != ALL_SPLITS.index("history"))
            check(name, empty, "empty")
            if name == "item_id":
                item_row = find_items(self.items, column)
            else:
                keys[name] = column_keys(column)
            if name == "request_id" and pa.types.is_string(column.type):
                columns[name] = column
        known = item_row >= 0
        self.counts["unknown_item"] += int((good & ~known).sum())
        table = {"user_key": keys["user_id"], "item_row": item_row.astype(np.int32)}
        table["row"] = row
        if "request_id" in keys:
            table["request_key"] = keys["request_id"]
        table.update(columns)
        if HISTORY_ITEM in self.types:
            table[HISTORY_ITEM] = history_rows(batch[HISTORY_ITEM], self.items)
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
