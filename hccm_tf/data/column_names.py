"""What columns may be called, and what a column is called as an input."""

import keyword
import re

from hccm_tf.errors import InputError

# Inputs of models and signatures that are no columns. `image` is one.
OWN_INPUTS = frozenset(
    (
        *("candidate_mask", "candidate_image", "candidate_representation"),
        *("history_image", "history_representation", "history_length"),
        *("image_map", "image_category"),
    )
)
ESCAPED = "column__"
LONGEST = 200  # bytes, because vocabularies are files


def input_name(column):
    """The name of a column's input, in batches and in signatures.

    TensorFlow carries what could be a name in Python: such are their own. Others, and
    those of inputs that are no columns, get one that no column has: `column__`, and of
    what is neither letter nor digit the UTF-8 bytes in hexadecimal digits, between
    underscores. `ad-position` becomes `column__ad_2d_position`.

    Args:
        column: name, see `check_column_names`.
    """
    carried = re.fullmatch("[A-Za-z][A-Za-z0-9_]*", column) and column != "self"
    taken = column.lower() in OWN_INPUTS or column.lower().startswith(ESCAPED)
    if carried and not taken and not keyword.iskeyword(column):
        return column
    escaped = re.sub("[^A-Za-z0-9]", lambda c: f"_{c[0].encode().hex()}_", column)
    return ESCAPED + escaped


def column_name(name):
    """The column whose input has a name: the inverse of `input_name`."""
    if not name.startswith(ESCAPED):
        return name
    escaped = name.removeprefix(ESCAPED)
    return re.sub("_([0-9a-f]+)_", lambda c: bytes.fromhex(c[1]).decode(), escaped)


def check_column_names(names):
    """Raises an `InputError` unless columns can be called so beside each other."""
    found = {}
    for name in names:
        problem = None
        if not isinstance(name, str) or not name.isprintable() or not name:
            problem = "a name is text that can be printed"
        elif "/" in name or len(name.encode()) > LONGEST:
            problem = f"a name is one for a file: without /, {LONGEST} bytes at most"
        if problem:
            raise InputError(f"column {name!r}: {problem}; rename the column")
        other = found.setdefault(input_name(name).lower(), name)
        if other != name:
            raise InputError(
                f"columns {other} and {name} differ in capitals only, which TensorFlow "
                "does not tell apart; rename one"
            )
