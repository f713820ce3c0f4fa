"""The commands that the wheel brings, and its flagfiles."""

import configparser
import importlib
import pathlib
import sys

import pytest

from hccm_tf import console
from hccm_tf.commands import CONFIGS, find_flagfiles, say_next

ROOT = pathlib.Path(__file__).parents[1]
# Parts of a command, not commands.
PARTS = {"hccm_tf.preparation.worker", "hccm_tf.flags.reference"}


def entry_points():
    """Name of a command → what pip calls."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["console_scripts"].split("\n")
    return dict(line.split(" = ") for line in lines if line)


def modules():
    """What `python -m` runs."""
    files = [ROOT / "train_main.py"]
    for folder in ("hccm_tf", "tfrecords_tools"):
        files += (ROOT / folder).rglob("*.py")
    names = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in files
        if '\nif __name__ == "__main__"' in file.read_text()
    }
    # Each importer has a shorter name.
    return {name for name in names if ".importers." not in name} - PARTS


def test_each_module_that_runs_is_a_command_of_its_name(monkeypatch):
    called = []
    monkeypatch.setattr(
        console.runpy, "run_module", lambda name, **told: called.append((name, told))
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, target in entry_points().items():
        module, _, attribute = target.partition(":")
        getattr(importlib.import_module(module), attribute)()
        module, told = called[-1]
        own = "train" if module == "train_main" else module.rpartition(".")[2]
        assert name == f"hccm-{own.replace('_', '-')}"
        assert told == {"run_name": "__main__", "alter_sys": True}
    assert sorted(module for module, _ in called) == sorted(modules())


def test_flagfiles_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = f"--flagfile={CONFIGS / 'hccm.flags'}"
    for word in ("hccm", "hccm.flags", "configs/hccm.flags"):
        assert find_flagfiles(["x", f"--flagfile={word}"]) == ["x", own]
        assert find_flagfiles(["x", "--flagfile", word, "y"]) == ["x", own, "y"]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "hccm.flags").touch()
    for word in ("configs/hccm.flags", "other/hccm.flags", "hcmm", "", ".", "/"):
        kept = [f"--flagfile={word}", "--model=hccm"]
        assert find_flagfiles(kept) == kept


@pytest.mark.parametrize("file", [*(ROOT / "configs").glob("*.flags")], ids=str)
def test_the_package_has_the_flagfiles(file):
    assert (CONFIGS / file.name).read_bytes() == file.read_bytes()


def test_what_is_next_can_be_typed(capsys):
    say_next(["hccm-ask", pathlib.Path("my models/1"), "request.json"], ["hccm-x"])
    said = capsys.readouterr().out
    assert said == "next: hccm-ask 'my models/1' request.json\nnext: hccm-x\n"
