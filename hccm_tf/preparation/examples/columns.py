"""Which columns a log and its catalogue may have."""

import pyarrow as pa

from hccm_tf.data.feature import HISTORY
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.log_values import CHECKED, HISTORY_ITEM, log_type

LOG_COLUMNS = ["user_id", "item_id", "label"]
OWN_COLUMNS = ("key", "user_key", "item_row", "image_key", "row", "request_key")


def column_types(types, item_types):
    """Types of all columns that may become features, once they are joined.

    Args:
        types: name → Arrow type of the log's columns.
        item_types: name → `log_type` of the catalogue's columns.

    Returns:
        dict name → `log_type`.

    Raises:
        InputError: if a column is missing, or may not be called or typed as it is.
    """
    _check_names(types, item_types)
    _check_item_ids(types, item_types["item_id"])
    columns = {
        name: log_type(name, dtype)
        for name, dtype in types.items()
        if name not in CHECKED
    }
    return columns | item_types


def _check_names(types, item_types):
    for name in (*types, *item_types):
        other_history = name.startswith(HISTORY) and name != HISTORY_ITEM
        if name in OWN_COLUMNS or other_history or not name or "/" in name:
            raise InputError(
                f"column {name!r}: the name is used here or is none for a file; rename "
                "the column"
            )
    untimed = "split" in types and HISTORY_ITEM in types
    if "timestamp" not in types and not untimed:
        raise InputError(
            "impressions: no column timestamp, which only a log with split and "
            f"{HISTORY_ITEM} does without. Received columns: {', '.join(types)}"
        )
    both = sorted(set(item_types) & set(types) - {"item_id"})
    if both:
        raise InputError(f"items and impressions both have a column {', '.join(both)}")


def _check_item_ids(types, item_type):
    """The log's item ids are of the type that they have in the catalogue."""
    found = {"item_id": types["item_id"]}
    if HISTORY_ITEM in types:
        found[HISTORY_ITEM] = getattr(types[HISTORY_ITEM], "value_type", None)
    for name, dtype in found.items():
        if dtype is None:
            raise InputError(
                f"impressions: column {name}: a list of item ids. Received: "
                f"{types[name]}"
            )
        if not pa.types.is_null(dtype) and log_type("item_id", dtype) != item_type:
            raise InputError(
                f"item_id is {item_type} in items and {name} is {dtype} in "
                "impressions: write both as integers or both as text"
            )
