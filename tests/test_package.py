"""The package's own names, each imported when it is asked for, and what it needs."""

import ast
import configparser
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest

import hccm_tf

ROOT = pathlib.Path(__file__).parents[1]


def test_import_is_light():
    script = """
import sys
import hccm_tf, hccm_tf.errors, hccm_tf.version
heavy = ("tensorflow", "keras", "numpy", "pandas", "sklearn", "apache_beam")
print([name for name in heavy if name in sys.modules])
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"


def test_commands_that_train_nothing_start_without_tensorflow():
    script = """
import sys
import hccm_tf.report, hccm_tf.serving.server_config
print([name for name in ("tensorflow", "keras", "pandas") if name in sys.modules])
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("name", hccm_tf.__all__)
def test_names_are_there(name):
    assert getattr(hccm_tf, name) is not None
    assert name in dir(hccm_tf)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'hccm_tf' has no attribute 'layer'"):
        _ = hccm_tf.layer


def imported_packages():
    """Top-level names that the sources import, but the project's and Python's own."""
    names = set()
    for folder in ("hccm_tf", "tfrecords_tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names.add(node.module)
    names = {name.partition(".")[0] for name in names}
    return names - {"hccm_tf", "tfrecords_tools"} - sys.stdlib_module_names


def requirements():
    """Lines of `setup.cfg` by the extra that they belong to, `None` for none."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = {None: setup["options"]["install_requires"]}
    texts.update(setup["options.extras_require"])
    return {extra: text.split() for extra, text in texts.items()}


def test_what_make_test_io_takes_the_oldest_of_has_an_oldest():
    for extra in (None, "io"):
        for line in requirements()[extra]:
            assert re.search("[>=]=", line), line


def test_what_is_imported_is_a_dependency():
    listed = [line for lines in requirements().values() for line in lines]
    listed = {re.split(r"[^\w-]", line)[0] for line in listed}
    known = importlib.metadata.packages_distributions()
    for name in imported_packages():
        projects = {project.lower() for project in known.get(name, [])}
        projects.add(name.replace("_", "-"))
        assert listed & projects, name
