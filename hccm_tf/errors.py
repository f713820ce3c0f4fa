"""Errors that a user can mend, reported as one line."""

import contextlib
import sys

# Exit codes of `train_main.py` after which --resume goes on.
PREEMPTED = 75  # EX_TEMPFAIL: try again
LOST_PROCESS = 76


class InputError(ValueError):
    """A file, column, row or flag that the user has to mend; the message names it."""


@contextlib.contextmanager
def report_input_errors():
    """Turns an error that a user can mend into one line on stderr and exit code 2."""
    try:
        yield
    except (InputError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
