"""What becomes of each column, and why: the rule, and what is told instead of it.

Text and integers are categories, also integers that gaps made floats and, in CSV,
digits that int64 would change: `007` stays text. Other numbers are numbers. Dates,
lists and what else has no such type are left out.
"""

import dataclasses

import pyarrow as pa

from hccm_tf.errors import InputError
from hccm_tf.preparation.column_facts import (
    FRACTIONS,
    GAPS,
    INTEGERS,
    LARGE,
    ZEROS,
    column_facts,
    is_number,
    numbers_in_text,
)
from hccm_tf.preparation.examples.log_values import CHECKED, FEATURE_DTYPES, IDS
from hccm_tf.preparation.tables import is_parquet, table_files

ARROW_TYPES = {name: dtype for dtype, name in FEATURE_DTYPES.items()}
# They are looked up by their values.
KEYS = ("user_id", "item_id", "category", "image")


@dataclasses.dataclass(frozen=True)
class Choice:
    """What becomes of a column.

    Args:
        dtype: Arrow type of its values from here on; `None` leaves it out.
        why: str.
        hint: of text that looks like numbers, an example.
    """

    dtype: pa.DataType | None
    why: str
    hint: str = ""


def _is_text(dtype):
    return any(
        test(dtype)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    )


def _is_integer(dtype):
    whole = pa.types.is_decimal(dtype) and dtype.scale <= 0
    return whole or pa.types.is_integer(dtype) or pa.types.is_boolean(dtype)


def _is_float(dtype):
    return pa.types.is_decimal(dtype) or pa.types.is_floating(dtype)


def choose(name, dtype, facts):
    """The `Choice` for a column, by the rule.

    Args:
        name: of the column.
        dtype: its Arrow type.
        facts: of `column_facts`, set.
    """
    if _is_text(dtype):
        return Choice(pa.string(), "text")
    if ZEROS in facts or (LARGE in facts and FRACTIONS not in facts):
        return Choice(pa.string(), f"integers with {(facts & {ZEROS, LARGE}).pop()}")
    if _is_integer(dtype):
        what = "truth values" if pa.types.is_boolean(dtype) else "integers"
        return Choice(pa.int64(), what)
    if not _is_float(dtype):
        told = f"--categorical={name} takes it as text"
        if pa.types.is_nested(dtype):
            told = "make a column of 0 and 1 for each value"
        return Choice(None, f"{dtype}; {told}")
    if name in IDS or (name in KEYS and FRACTIONS not in facts):
        return Choice(pa.int64(), "integers, as ids are")
    if FRACTIONS in facts or not facts & {GAPS, INTEGERS}:
        return Choice(pa.string() if name in KEYS else pa.float32(), "floats")
    return Choice(pa.int64(), "integers with gaps")


def as_category(name, dtype, facts):
    """The `Choice` for a column that is told to be a category."""
    whole = _is_float(dtype) and not facts & {FRACTIONS, LARGE}
    if _is_integer(dtype) or whole:
        kept = facts & {ZEROS, LARGE}
        return Choice(pa.string() if kept else pa.int64(), "as told")
    return Choice(pa.string(), "as told")


def choose_columns(items, impressions, schema, options):
    """What becomes of the columns of both tables.

    Args:
        items: `(path, types)` of the catalogue.
        impressions: `(path, types)` of the log.
        schema: `Schema`, whose word counts; or `None`.
        options: `BuildOptions`.

    Returns:
        `(of_items, of_log)`: dicts name → `Choice`; of the log's columns that are
        checked, ids alone.

    Raises:
        InputError: if an option names a column that is not there, or cannot be what it
            is told to be.
    """
    of_log = {n: t for n, t in impressions[1].items() if n in IDS or n not in CHECKED}
    tables = items, (impressions[0], of_log)
    _check_options(options, schema, {**items[1], **of_log})
    told = {"image": Choice(pa.string(), "text")}
    for name in options.numeric:
        told[name] = Choice(pa.float32(), "as told")
    if schema is not None:
        told = _told_by(schema, [*items[1], *of_log]) | told
    found = []
    for path, types in tables:
        rest = {name: dtype for name, dtype in types.items() if name not in told}
        facts = column_facts(path, [n for n, dtype in rest.items() if is_number(dtype)])
        chosen = {name: told[name] for name in types if name in told}
        for name, dtype in rest.items():
            rule = as_category if name in options.categorical else choose
            chosen[name] = rule(name, dtype, facts.get(name, set()))
        if schema is None:
            chosen = _with_hints(path, types, chosen)
        found.append({name: chosen[name] for name in types})
    return _with_same_ids([items[0], impressions[0]], found)


def _check_options(options, schema, types):
    if options.history_columns is not None and schema is not None:
        raise InputError("history_columns: the schema says what histories are; edit it")
    for option in ("numeric", "categorical"):
        names = getattr(options, option)
        if names and schema is not None:
            raise InputError(f"{option}: the schema says what columns are; edit it")
        for name in names:
            if name not in types:
                raise InputError(
                    f"{option}: no column {name}. Received columns: {', '.join(types)}"
                )
            if option == "numeric" and name in (*KEYS, *IDS):
                raise InputError(f"numeric: {name} is an id or a category")
            if pa.types.is_nested(types[name]):
                raise InputError(f"{option}: column {name} is {types[name]}")
    both = set(options.numeric) & set(options.categorical)
    if both:
        raise InputError(f"numeric: {', '.join(sorted(both))} is categorical, too")


def _told_by(schema, names):
    """What a schema says of columns: name → `Choice`.

    It says nothing of ids and categories that are not features, which a join needs.
    """
    told = {}
    for name in names:
        if name in schema:
            feature = schema[name]
            dtype = "float32" if feature.is_float else feature.dtype
            if dtype in ARROW_TYPES:
                told[name] = Choice(ARROW_TYPES[dtype], "schema")
        elif name not in (*KEYS, *IDS):
            told[name] = Choice(None, "not in the schema")
    return told


def _with_hints(path, types, chosen):
    """Names text that looks like numbers."""
    texts = {
        name: types[name]
        for name, choice in chosen.items()
        if choice.why == "text" and name not in (*KEYS, *IDS)
    }
    hints = numbers_in_text(path, texts)
    return {
        name: dataclasses.replace(choice, hint=hints.get(name, ""))
        for name, choice in chosen.items()
    }


def _with_same_ids(paths, tables):
    """Item ids that are text in one table are text in the other, if that is CSV."""
    is_text = [table["item_id"].dtype == pa.string() for table in tables]
    for path, table, text in zip(paths, tables, is_text, strict=True):
        if any(is_text) and not text and not any(map(is_parquet, table_files(path))):
            other = "items" if table is tables[1] else "impressions"
            table["item_id"] = Choice(pa.string(), f"text, as in {other}")
    return tables


def types_to_read(types, choices):
    """Name → Arrow type in which to read a table's columns that are not left out.

    Args:
        types: name → Arrow type of the table's columns.
        choices: name → `Choice`.
    """
    found = {}
    for name, dtype in types.items():
        choice = choices.get(name)
        if choice is None:
            found[name] = dtype
        elif choice.dtype is not None:
            found[name] = choice.dtype if choice.dtype == pa.string() else dtype
    return found
