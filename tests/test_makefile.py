"""What `make` would run, without running it."""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TARGETS = (
    "quickstart",
    "test",
    "lint",
    "test-io",
    "test-backends",
    "test-wheel",
    "docs",
    "docs-test",
    "soak",
)


def commands(*words):
    """The command lines of a target, as if nothing were made yet."""
    # The suite may itself be started by make, with variables.
    settings = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")
    settings += ("VENV", "UV", "PYTHON")
    found = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--always-make", *words],
        cwd=ROOT,
        env={name: os.environ[name] for name in os.environ if name not in settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("environment", ["", "VENV=.venv", "VENV=/somewhere/else"])
@pytest.mark.parametrize("installer", ["UV=", "UV=/bin/uv"])
@pytest.mark.parametrize(
    "target, extra", [("test-io", "io"), ("test-backends", "backends")]
)
def test_pinned_packages_have_environments_of_their_own(
    target, extra, installer, environment
):
    lines = commands(target, installer, *filter(None, [environment]))
    main = environment.removeprefix("VENV=") or ".venv"
    assert any(f"[{extra},test]" in line for line in lines)
    for line in lines:
        assert f"{main}-{extra}" in line
        assert not re.search(rf"{re.escape(main)}(?!-{extra})", line), line


@pytest.mark.parametrize("installer", ["UV=", "UV=/bin/uv"])
def test_the_oldest_packages_are_installed_first(installer):
    lines = [line for line in commands("test-io", installer) if "'.[" in line]
    assert len(lines) == 2
    assert re.search(r"--resolution=lowest-direct\s+--editable '\.\[io\]'", lines[0])
    assert lines[1].endswith("--editable '.[io,test]'") and "resol" not in lines[1]


@pytest.mark.parametrize("target", TARGETS)
def test_files_that_are_named_exist(target):
    paths = re.findall(
        r"\b(?:tests|benchmarks|configs|hccm_tf)/[\w/.-]+\b",
        "\n".join(commands(target)),
    )
    for path in paths:
        assert (ROOT / path).exists(), path
    modules = re.findall(
        r"-m ((?:tfrecords_tools|hccm_tf)[\w.]+)", "\n".join(commands(target))
    )
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


def test_usage_names_every_target():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    assert sorted(phony) == sorted(TARGETS)
    described = re.findall(r"^# make ([\w-]+):", makefile, re.MULTILINE)
    assert sorted(described) == sorted(TARGETS)
