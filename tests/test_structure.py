"""The package's files and folders: which may import which, and how big they are.

Arrows point one way, so that a folder can be read, tested and changed without those
that stand on it. Imports are read from the sources, those inside functions too.
"""

import ast
import collections
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LONGEST_FILE, BIGGEST_FOLDER = 300, 0.2
# From the ground up: a part imports from lower levels and from itself. Modules of
# `hccm_tf/` that are not here stand beside the levels; what a part reaches through them
# counts as its own import.
LEVELS = (
    {"hccm_tf.layers", "hccm_tf.optimizers"},
    {"hccm_tf.models", "hccm_tf.images"},
    {"hccm_tf.data"},
    {"hccm_tf.preparation", "hccm_tf.training", "hccm_tf.serving"},
    {"hccm_tf.flags", "hccm_tf.trees"},
    {"hccm_tf.comparison", "hccm_tf.explanation", "hccm_tf.estimator"},
    {"hccm_tf.verdict"},
    {"train_main", "tfrecords_tools"},
)
LEVEL = {part: number for number, parts in enumerate(LEVELS) for part in parts}
# A refresh writes representations of new images; the estimator explains.
BESIDE = {
    ("hccm_tf.serving", "hccm_tf.preparation"),
    ("hccm_tf.estimator", "hccm_tf.explanation"),
}
PURE = ("hccm_tf.layers", "hccm_tf.optimizers")


@functools.cache
def modules():
    """Dict from a module's name to its file."""
    files = [ROOT / "train_main.py"]
    for folder in ("hccm_tf", "tfrecords_tools"):
        files += sorted((ROOT / folder).rglob("*.py"))
    names = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = file
    return names


def imported(tree, module, is_package):
    """The modules that a source names in its imports, as far as it says.

    `from a.b import c` is `a.b.c` here, whether that is a module or something in one.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")
            above = above[: len(above) - node.level + is_package] if node.level else []
            start = [*above, *filter(None, [node.module])]
            yield from (".".join([*start, alias.name]) for alias in node.names)


@functools.cache
def imports():
    """Dict from a module to the modules of the project that it imports."""
    arrows = {}
    for module, file in modules().items():
        found = set()
        tree = ast.parse(file.read_text())
        for name in imported(tree, module, file.name == "__init__.py"):
            parts = name.split(".")
            prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            found.add(next((p for p in prefixes if p in modules()), None))
        arrows[module] = found - {None, module}
    return arrows


def folder(module):
    """The folder of a module; those of `hccm_tf/` itself count one by one."""
    parent = modules()[module].parent.relative_to(ROOT)
    return module if parent in (pathlib.Path("."), pathlib.Path("hccm_tf")) else parent


def part(module):
    """What stands in LEVELS of a module: its top-level folder, or itself."""
    names = module.split(".")
    return ".".join(names[: 2 if names[0] == "hccm_tf" else 1])


def circles(arrows):
    """Strings: for each node that reaches itself, a shortest way round."""
    found = {}
    for start in arrows:
        ways = collections.deque([[start]])
        seen = set()
        while ways:
            way = ways.popleft()
            for target in sorted(arrows.get(way[-1], ()), key=str):
                if target == start:
                    found.setdefault(frozenset(way), [*way, start])
                    ways.clear()
                    break
                if target not in seen:
                    seen.add(target)
                    ways.append([*way, target])
    return [" -> ".join(map(str, way)) for way in found.values()]


def reached(module):
    """Pairs: a module with a level, and the way to it through modules without."""
    ways, seen = [[module]], {module}
    while ways:
        way = ways.pop()
        for target in sorted(imports()[way[-1]] - seen):
            seen.add(target)
            if part(target) in LEVEL:
                yield target, " -> ".join([*way, target])
            else:
                ways.append([*way, target])


def test_imports_are_read():
    """As many forms of imports as there are, and a circle."""
    source = """
import a.b
from a import c
def f():
    from . import d
    from ..e import g as h
"""
    names = set(imported(ast.parse(source), "p.q.r", False))
    assert names == {"a.b", "a.c", "p.q.d", "p.e.g"}
    names = set(imported(ast.parse(source), "p.q", True))
    assert names == {"a.b", "a.c", "p.q.d", "p.e.g"}
    arrows = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}
    assert circles(arrows) == ["a -> b -> c -> a"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert "hccm_tf.layers.dice" in imports()["hccm_tf.layers"]
    assert "hccm_tf.estimator" in modules() and len(modules()) > 100


def test_no_circle_among_files():
    found = circles(imports())
    assert not found, "\n" + "\n".join(found)


def test_no_circle_among_folders():
    arrows = collections.defaultdict(set)
    for module, targets in imports().items():
        arrows[folder(module)] |= {folder(target) for target in targets}
    without_itself = {node: targets - {node} for node, targets in arrows.items()}
    found = circles(without_itself)
    assert not found, "\n" + "\n".join(found)


def test_the_package_does_not_import_its_commands():
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in sorted(targets)
        if part(module) not in LEVELS[-1] and part(target) in LEVELS[-1]
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_package_names_its_modules():
    """An import from `hccm_tf` itself would hide what it leads to."""
    wrong = [
        f"{module} imports from hccm_tf: name the module instead"
        for module, targets in imports().items()
        if module.startswith("hccm_tf.") and "hccm_tf" in targets
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("pure", PURE)
def test_layers_and_optimizers_stand_alone(pure):
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in sorted(targets)
        if part(module) == pure and part(target) != pure
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_arrows_point_one_way():
    wrong = []
    for module in filter(lambda module: part(module) in LEVEL, modules()):
        for target, way in reached(module):
            pair = part(module), part(target)
            lower = LEVEL[pair[1]] < LEVEL[pair[0]]
            if not lower and pair[0] != pair[1] and pair not in BESIDE:
                wrong.append(f"{pair[0]} may not import {pair[1]}: {way}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_folder_has_a_level():
    folders = {
        part(module)
        for module, file in modules().items()
        if file.parent not in (ROOT, ROOT / "hccm_tf") or module in LEVEL
    }
    assert folders | {"train_main"} == set(LEVEL)


def test_files_are_short():
    lines = {file: file.read_text().count("\n") for file in modules().values()}
    long = [
        f"{file.relative_to(ROOT)}: {number} lines, at most {LONGEST_FILE}"
        for file, number in lines.items()
        if number > LONGEST_FILE
    ]
    assert not long, "\n" + "\n".join(long)


def test_folders_are_small():
    lines = collections.Counter()
    for file in modules().values():
        lines[file.parent.relative_to(ROOT)] += file.read_text().count("\n")
    total = lines.total()
    big = [
        f"{path}: {number / total:.0%} of the lines, at most {BIGGEST_FOLDER:.0%}"
        for path, number in lines.items()
        if number / total > BIGGEST_FOLDER
    ]
    assert not big, "\n" + "\n".join(big)
