"""Which columns a log and its catalogue may have."""

import pyarrow as pa

from hccm_tf.data.column_names import check_column_names
from hccm_tf.data.feature import HISTORY
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.preparation.examples.column_choice import choose
from hccm_tf.preparation.examples.log_values import (
    CHECKED,
    FRACTION,
    HISTORY_ITEM,
    IDS,
)

ITEM_COLUMNS = ["item_id", "image", "category"]
LOG_COLUMNS = ["user_id", "item_id", "label"]
OWN_COLUMNS = (
    "key",
    "user_key",
    "item_row",
    "image_key",
    "row",
    "request_key",
    FRACTION,
)


def check_names(types, item_types, inferred):
    """Raises `InputError` if a column is missing, or may not be called as it is.

    Args:
        types: name → Arrow type of the log's columns.
        item_types: name → Arrow type of the catalogue's columns.
        inferred: whether all of them may become features, and not those of a schema.
    """
    for name in (*types, *item_types):
        other_history = name.lower().startswith(HISTORY) and name != HISTORY_ITEM
        # What the log says of an impression is not said of an item.
        of_impression = name in CHECKED and name in item_types
        if name in OWN_COLUMNS or other_history or of_impression:
            where = "items: " if name in item_types else "impressions: "
            raise InputError(
                f"{where}column {name}: the name is used here; rename the column"
            )
    if inferred:
        of_log = [name for name in types if name not in CHECKED]
        for where, names in (("impressions", of_log), ("items", item_types)):
            with errors_begin_with(f"{where}: "):
                check_column_names(names)
        check_column_names([*of_log, *item_types])
    untimed = "split" in types and HISTORY_ITEM in types
    if "timestamp" not in types and not untimed:
        raise InputError(
            "impressions: no column timestamp, which only a log with split and "
            f"{HISTORY_ITEM} does without. Received columns: {', '.join(types)}"
        )
    both = sorted(set(item_types) & set(types) - {"item_id"})
    if both:
        raise InputError(
            f"items and impressions both have a column {', '.join(both)}: drop it from "
            "impressions if it is the item's, and from items if it changes with what "
            "is shown"
        )


def check_ids(types, of_items, of_log, told):
    """Raises `InputError` if ids are none, or the log's are not the catalogue's.

    Args:
        types: name → Arrow type of the log's columns.
        of_items: name → `Choice` for the catalogue's columns.
        of_log: name → `Choice` for the log's.
        told: whether a schema says what item ids are.
    """
    for table, choices in (("items", of_items), ("impressions", of_log)):
        for name in (*ITEM_COLUMNS, *IDS):
            if name in choices and choices[name].dtype is None:
                raise InputError(
                    f"{table}: column {name}: integers or text. Received: "
                    f"{choices[name].why}"
                )
    item_type = of_items["item_id"].dtype
    found = {"item_id": of_log["item_id"].dtype}
    if HISTORY_ITEM in types:
        dtype = getattr(types[HISTORY_ITEM], "value_type", None)
        if dtype is None:
            raise InputError(
                f"impressions: column {HISTORY_ITEM}: a list of item ids. Received: "
                f"{types[HISTORY_ITEM]}"
            )
        if not pa.types.is_null(dtype) and not told:
            found[HISTORY_ITEM] = choose("item_id", dtype, set()).dtype
    for name, dtype in found.items():
        if dtype != item_type:
            raise InputError(
                f"item_id is {item_type} in items and {name} is {dtype} in "
                "impressions: write both as integers or both as text"
            )
