"""Errors that a user can mend, reported as one line."""

import contextlib
import re
import sys
import textwrap

# Exit codes of `train_main.py` after which --resume goes on.
PREEMPTED = 75  # EX_TEMPFAIL: try again
LOST_PROCESS = 76


class InputError(ValueError):
    """A file, column, row or argument that the user has to mend; the message names it.

    Of an argument the message begins with the name: `"seed: ..."` or `"seed=-1: ..."`.
    """


@contextlib.contextmanager
def errors_begin_with(prefix):
    """Puts `prefix` in front of the message of an `InputError`.

    For what an argument is called here, and otherwise where the error comes from.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{prefix}{error}") from error


def first_line(error, length=200):
    """The beginning of a library's error, which may go on for pages; str."""
    return textwrap.shorten(str(error).strip().partition("\n")[0], length)


def with_flag(message, flag_names):
    """An error's message, in which arguments that are flags have become flags.

    These are the one that it begins with, and those that it gives a value.
    """

    def written(found):
        name, value = found.groups()
        if name not in flag_names:
            return found[0]
        return f"--{name}" if value else f"--{name}="

    said, *received = message.partition("Received:")
    said = re.sub(r"(?<![^\s(])(\w+)=(True\b)?", written, said)
    message = "".join([said, *received])
    name = re.match(r"\w*", message)[0]
    is_flag = name in flag_names and message[len(name) :].startswith((":", "="))
    return f"--{message}" if is_flag else message


@contextlib.contextmanager
def undecodable_rows_unsaid():
    """Hides what Python says of an error in Arrow's call of a handler of bad rows.

    A row of CSV that is not UTF-8 and has too many fields fails before the handler is
    called. Arrow then raises an error of its own, which names the row.
    """
    hook = sys.unraisablehook

    def say(unraisable):
        if not isinstance(unraisable.exc_value, UnicodeDecodeError):
            hook(unraisable)

    sys.unraisablehook = say
    try:
        yield
    finally:
        sys.unraisablehook = hook


@contextlib.contextmanager
def report_input_errors(flag_names=()):
    """Turns an error that a user can mend into one line on stderr and exit code 2.

    Args:
        flag_names: names of a command's flags; an argument of such a name, with which
            a message begins, becomes the flag.
    """
    try:
        with undecodable_rows_unsaid():
            yield
    except (InputError, FloatingPointError) as error:
        message = " ".join(str(error).splitlines())
        print(f"error: {with_flag(message, flag_names)}", file=sys.stderr)
        sys.exit(2)
