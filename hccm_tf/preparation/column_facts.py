"""What the columns of a table hold, where their types do not say what they are.

Arrow guesses the types of CSV, in which `007` is the number 7, and pandas makes floats
of integers with gaps. What is asked here is asked of all rows, not of the first ones.
"""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hccm_tf.preparation.tables import (
    file_schema,
    is_parquet,
    pieces,
    read_batches,
    read_column,
    read_text,
    table_files,
)

# Facts of a column. Of some file of the table:
INTEGERS = "integers"  # it has them, as their type or as all that CSV has
GAPS = "gaps"  # something is missing
FRACTIONS = "fractions"  # a number is not whole, or more than a float tells apart
ZEROS = "leading zeros"  # in CSV: a number that begins with 0, such as 007
LARGE = "more than 64 bits"  # with the sign: integers that int64 cannot hold

LARGEST_INT64 = 2**63 - 1
LEADING_ZERO = r"^\s*[-+]?0[0-9xX]"
INTEGER = r"^\s*[-+]?\d+\s*$"
WHOLE = r"^\s*[-+]?\d+(\.0*)?\s*$"
# 12,99, €12.50, 1 299.00 EUR or 15%: with a separator, a currency or a unit.
NUMBER = r"(\d+|\d{1,3}([ .,'’\x{a0}\x{202f}]\d{3})+)([.,]\d+)?"
SIGNS = r"^[-+]?\s*(\p{Sc}|[A-Z]{3})?\s*[-+]?", r"\s*(\p{Sc}|%|[A-Z]{3})?$"
LIKE_NUMBER = SIGNS[0] + NUMBER + SIGNS[1]
LIKE_NUMBERS_SHARE = 0.9


def is_number(dtype):
    """Whether a type is of integers or of floats."""
    return pa.types.is_integer(dtype) or pa.types.is_floating(dtype)


def column_facts(path, names):
    """The facts of some columns of a table: dict name → set.

    Args:
        path: file or folder.
        names: of columns; those that are numbers in a file are read there.
    """
    facts = {name: set() for name in names}
    for file in table_files(path):
        schema = file_schema(file)
        types = {
            field.name: field.type
            for field in schema
            if field.name in facts and is_number(field.type)
        }
        look = _look_at_parquet if is_parquet(file) else _look_at_csv
        for name, found in look(file, types).items():
            facts[name] |= found
    return facts


def _look_at_parquet(file, types):
    facts = {}
    for name, dtype in types.items():
        found = facts[name] = set()
        if pa.types.is_integer(dtype):
            found.add(INTEGERS)
            if pa.types.is_uint64(dtype):
                largest = map(pc.max, read_column(file, name))
                if any((value.as_py() or 0) > LARGEST_INT64 for value in largest):
                    found.add(LARGE)
            continue
        for column in read_column(file, name):
            values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            missing = np.isnan(values)
            if missing.any():
                found.add(GAPS)
            whole = (np.floor(values) == values) & (np.abs(values) < 2.0**53)
            if not (whole | missing).all():
                found.add(FRACTIONS)
                break
    return facts


def _look_at_csv(file, types):
    facts = {name: set() for name in types}
    floats = {n for n, dtype in types.items() if pa.types.is_floating(dtype)}
    integers = set(types)
    if not types:
        return facts
    try:
        for batch in read_text(file, types):
            for name in types:
                column, found = batch[name], facts[name]
                if name in floats and FRACTIONS in found:
                    continue
                if column.null_count:
                    found.add(GAPS)
                if name not in floats:
                    if _any(column, LEADING_ZERO):
                        found.add(ZEROS)
                elif not _all(column, WHOLE):
                    found.add(FRACTIONS)
                elif not _all(column, INTEGER):
                    integers.discard(name)
    except pa.ArrowInvalid:
        # Reading it will say which row is wrong.
        pass
    for name in integers:
        if FRACTIONS not in facts[name]:
            facts[name].add(LARGE if name in floats else INTEGERS)
    return facts


def _any(column, pattern):
    return pc.any(pc.match_substring_regex(column, pattern)).as_py()


def _all(column, pattern):
    """Whether all values that are not null match; Arrow's answer of none is true."""
    return pc.all(pc.match_substring_regex(column, pattern), min_count=0).as_py()


def numbers_in_text(path, types):
    """Which columns of text look like numbers, as far as the first rows say.

    Args:
        path: file or folder.
        types: name → type of the table's columns, all of them text.

    Returns:
        dict name → an example, such as `"12,99"`.
    """
    if not types:
        return {}
    found = {}
    # A table without a row has no piece.
    batches = (read_batches(p, types, lambda row: "skip") for p in pieces(path)[:1])
    for _, batch in itertools.chain.from_iterable(batches):
        for name in types:
            values = batch[name].unique().drop_null()
            values = values.filter(pc.not_equal(values, ""))
            like = pc.match_substring_regex(values, LIKE_NUMBER)
            # Digits alone are as good as integers are.
            odd = pc.and_(like, pc.invert(pc.match_substring_regex(values, INTEGER)))
            many = pc.sum(like).as_py() or 0
            if many >= max(1, LIKE_NUMBERS_SHARE * len(values)):
                examples = values.filter(odd)
                if len(examples):
                    found[name] = examples[0].as_py()
        break
    return found
