"""The help of `train_main.py`: the flags by what they are about, in full sentences."""

import textwrap

from hccm_tf.configuration import readable
from hccm_tf.flags.groups import all_groups, own_fields
from hccm_tf.options import describe, kind_of

WIDTH = 80


def help_text(head, models):
    """What `--help` prints.

    Args:
        head: what stands before the flags.
        models: subclasses of `hccm_tf.models.Model`.

    Returns:
        str.
    """
    blocks = [head.strip()]
    for options, readers in all_groups(models).items():
        title = _title(options)
        if readers is not None and len(readers) < len(models):
            title += f" Read by {', '.join(model.name for model in readers)}."
        lines = textwrap.wrap(title, WIDTH)
        for field in own_fields(options):
            lines += _flag(field, readers, models)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _title(options):
    return options.__doc__.partition("\n")[0]


def _flag(field, readers, models):
    """The lines of one flag."""
    kind = kind_of(field)
    written = f"--[no]{field.name}" if kind is bool else f"--{field.name}"
    sentence = describe(field)
    needs = field.metadata["needs"]
    if needs is not None:
        names = ", ".join(m.name for m in models if field.name in readable(m))
        sentence += f" Read by {names}."
    if field.default is not None:
        sentence += f" By default {default_text(field)}."
    indent = " " * 6
    body = textwrap.wrap(
        sentence, WIDTH, initial_indent=indent, subsequent_indent=indent
    )
    return [f"  {written}", *body]


def default_text(field):
    """The default of an option as it is written on the command line."""
    value = field.default
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
