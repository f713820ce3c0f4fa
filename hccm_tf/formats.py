"""Versions of the forms that DATA, MAPS and RUN have on disk.

A form gets another number when what was written before can no longer be read.
"""

from hccm_tf.errors import InputError

# 2: a record is a request, not an impression.
DATA = 2
MAPS = 1
# 2: a model takes requests. 3: it normalizes the images' similarities. 4: each id has a
# dropout rate of its own.
RUN = 4


def check_format(path, found, expected, command):
    """Raises an `InputError` unless a folder has the form that this package reads.

    Args:
        path: the file that says which it has.
        found: what it says, `None` for nothing.
        expected: `DATA`, `MAPS` or `RUN`.
        command: what makes the folder anew.
    """
    if found != expected:
        raise InputError(
            f"{path}: format {found or 'unknown'}, this package reads {expected}; make "
            f"it anew with {command}"
        )
