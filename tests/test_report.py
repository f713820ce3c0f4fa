"""The test metrics of runs side by side."""

import json
import pathlib

import pytest

from hccm_tf.report import row_names, table
from hccm_tf.run_folder import RunFolder
from tests import processes

ROOT = pathlib.Path(__file__).parents[1]
ORACLE = {"auc": 0.9, "gauc": 0.8, "log_loss": 0.3, "calibration": 1.0}


def _metrics(model, auc):
    test = {"auc": auc, "gauc": 0.7, "log_loss": 0.5, "calibration": 1.1}
    return {"model": model, "test": test, "examples_per_second": 1234.5}


@pytest.fixture
def runs(tmp_path):
    """Folders of three runs: `din` twice, then `hccm`."""
    folders = []
    for name, model, auc in (("a", "din", 0.6), ("b", "din", 0.7), ("c", "hccm", 0.75)):
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        folder.metrics.write_text(json.dumps(_metrics(model, auc)))
        folders.append(folder.path)
    return folders


def _cells(lines):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _run(*arguments):
    return processes.run(["-m", "hccm_tf.report", *arguments], cwd=ROOT)


def test_runs_of_several_models():
    metrics = [_metrics("din", 0.6), _metrics("hccm", 0.75)]
    _, _, *rows = _cells(table(["din", "hccm"], metrics, ORACLE))
    assert rows == [
        ["din", "0.6000", "0.7000", "0.5000", "1.1000", "1234", ""],
        ["hccm", "0.7500", "0.7000", "0.5000", "1.1000", "1234", "50%"],
        ["oracle", "0.9000", "0.8000", "0.3000", "1.0000", "", "100%"],
    ]
    # Where the first is at the ceiling, or above it, there is no headroom.
    for auc in (0.9, 0.95):
        metrics[0] = _metrics("din", auc)
        rows = _cells(table(["din", "hccm"], metrics, ORACLE))[2:]
        assert [row[-1] for row in rows] == [""] * 3


def test_runs_without_an_oracle():
    metrics = [_metrics("din", 0.6), _metrics("hccm", 0.75)]
    _, _, *rows = _cells(table(["din", "hccm"], metrics, ORACLE))
    header, line, *without = _cells(table(["din", "hccm"], metrics))
    assert header[-1] == "examples/s" and line == ["---"] * 6
    assert without == [row[:-1] for row in rows[:2]]


def test_runs_of_one_model_are_told_apart(runs, tmp_path):
    (tmp_path / "oracle.json").write_text(json.dumps(ORACLE))
    result = _run(*runs, f"--oracle={tmp_path / 'oracle.json'}")
    assert result.returncode == 0, result.stderr
    rows = _cells(result.stdout.splitlines())[2:]
    assert [row[0] for row in rows] == ["a", "b", "c", "oracle"]
    assert [row[-1] for row in rows] == ["", "33%", "50%", "100%"]


def test_names_of_rows(tmp_path):
    one, other = tmp_path / "x" / "din", tmp_path / "y" / "din"
    assert row_names([one, other], ["din", "hccm"]) == ["din", "hccm"]
    assert row_names([one, other], ["din", "din"]) == [str(one), str(other)]
    assert row_names([tmp_path / "a", tmp_path / "b"], ["din", "din"]) == ["a", "b"]


def test_what_is_missing(runs, tmp_path):
    for arguments, word in (
        ((), "run folder"),
        ((tmp_path,), "metrics.json"),
        ((runs[0], f"--oracle={tmp_path / 'none.json'}"), "--oracle="),
    ):
        result = _run(*arguments)
        assert result.returncode == 2 and word in result.stderr
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
