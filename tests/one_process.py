"""Runs commands in this process, where a process each would take seconds."""

import contextlib
import io

from absl import flags

from hccm_tf.commands import check_no_words
from hccm_tf.errors import report_input_errors


def run_here(module, *arguments):
    """Runs a command as `hccm_tf.commands.run` does; an error that it raises is raised.

    Args:
        module: the command's module, with `main` and `define_flags`.
        *arguments: its words; those after `"--"` are the command's own.

    Returns:
        `(exit code, what it wrote to stderr)`.
    """
    values, known = flags.FLAGS, set(flags.FLAGS)
    arguments = [str(argument) for argument in arguments]
    place = arguments.index("--") if "--" in arguments else len(arguments)
    code, errors = 0, io.StringIO()
    module.define_flags()
    # Another test's.
    values.unparse_flags()
    try:
        with contextlib.redirect_stderr(errors), report_input_errors(values):
            words = values(["command", *arguments[:place]])[1:]
            if module.__name__ != "hccm_tf.report":
                check_no_words(words)
            module.main(words or arguments[place + 1 :])
    except SystemExit as end:
        code = end.code
    finally:
        values.remove_flag_values({n: values[n] for n in values if n not in known})
    return code, errors.getvalue()


def what_is_wrong(found, *places):
    """What is not as promised of a command that got what it cannot read; or `""`.

    Args:
        found: of `run_here`.
        *places: what the error must name one of.
    """
    code, errors = found
    lines = [s for s in errors.splitlines() if not s.startswith("warning: ")]
    if code == 0:
        return "no error"
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return f"{len(lines)} lines: {errors[:500]}"
    if not any(place in lines[0] for place in places):
        return f"{' or '.join(places)} is not named: {lines[0]}"
    return ""
