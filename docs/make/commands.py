"""The page of all commands: what each says of itself, and its flags."""

import importlib
import re

from absl import flags

HEAD = """\
# Commands

Each prints the same with `--help`. A flag is written `--name=value`; one that is true
or false, `--name` or `--noname`. `--flagfile=FILE` reads flags from a file, one a line.
[Flags of train_main.py](flags.md) have a page of their own.
"""


def commands_page(root):
    """The page as Markdown.

    Args:
        root: `pathlib.Path` of the repository, whose modules with a function
            `define_flags` are the commands.
    """
    parts = [HEAD]
    for path in sorted(
        (*root.glob("tfrecords_tools/**/*.py"), *root.glob("hccm_tf/**/*.py"))
    ):
        source = path.read_text()
        if "def define_flags()" in source and "__main__" in source:
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            parts += _command(importlib.import_module(name))
    return "\n".join(parts)


def _sources(folder):
    return sorted(folder.rglob("*.py"))


def _command(module):
    """Lines of one command."""
    known = set(flags.FLAGS)
    module.define_flags()
    found = [flags.FLAGS[name] for name in flags.FLAGS if name not in known]
    found = sorted({flag.name: flag for flag in found}.values(), key=_name)
    title = re.search(r"-m ([\w.]+)", module.__doc__ or "")
    lines = [f"## {(title[1] if title else module.__name__).rpartition('.')[2]}", ""]
    lines += [_fenced(module.__doc__), ""]
    lines += ["| flag | default | meaning |", "|---|---|---|"]
    lines += [_row(flag) for flag in found]
    for flag in found:
        delattr(flags.FLAGS, flag.name)
    return [*lines, ""]


def _name(flag):
    return flag.name


def _row(flag):
    name = f"[no]{flag.name}" if flag.boolean else flag.name
    default = "" if flag.default in (None, [], "") else f"`{flag.default_as_str}`"
    default = default.replace("'", "")
    # To a browser <name> would be a tag.
    meaning = flag.help.replace("|", "\\|").replace("<", "&lt;")
    return f"| `--{name}` | {default} | {meaning} |"


def _fenced(text):
    """A docstring whose indented commands become blocks of code."""
    lines, inside = [], False
    for line in text.strip().splitlines():
        code = line.startswith("    ") or (inside and not line)
        if code and not inside:
            lines.append("```text")
        if inside and not code:
            lines[-1:] = ["```", ""] if not lines[-1] else [lines[-1], "```"]
        inside = code
        lines.append(line[4:] if code else line)
    return "\n".join([*lines, "```"] if inside else lines)
