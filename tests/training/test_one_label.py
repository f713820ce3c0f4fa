"""Splits with one label, of which AUC is not defined: said, and no epoch is lost."""

import json
import math

import numpy as np
import pytest

from hccm_tf import CTREstimator
from hccm_tf.comparison import compare
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.labels import missing_label
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.validation.validate import validate
from hccm_tf.run_folder import RunFolder
from hccm_tf.training import fit as module
from tests.conftest import tiny
from tests.preparation.examples.logs import make_items, make_log

NO_CLICK = "split validation has no click: its AUC is not defined"
ONLY_CLICKS = "split test has no impression without a click: its AUC is not defined"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder, and what was said when it was built."""
    log = make_log(60)
    log.loc[log.split == "validation", "label"] = 0
    log.loc[log.split == "test", "label"] = 1
    path = tmp_path_factory.mktemp("one_label") / "data"
    build_examples(make_items(), log, path, num_shards=1)
    return path


def test_it_is_said_when_it_is_built_and_validated(data, tmp_path, capsys):
    lines, errors = validate(data)
    assert not errors
    assert [line for line in lines if "AUC" in line] == [NO_CLICK, ONLY_CLICKS]
    log = make_log(60)
    for split in ("validation", "test"):
        log.loc[log.split == split, "label"] = [0, 1]
    # A click that does not count is none.
    log = log.assign(weight=np.where(log.split == "test", 1 - log.label, 1.0))
    build_examples(make_items(), log, tmp_path / "data", num_shards=1)
    found = capsys.readouterr().out.splitlines()
    assert [line for line in found if "AUC" in line] == [
        ONLY_CLICKS.replace("impression without a click", "click")
    ]
    assert missing_label(DataFolder(tmp_path / "data"), "train") == ""


def test_the_epoch_of_the_lowest_log_loss_is_kept(data, monkeypatch, capsys):
    asked, real = [], module.run_epochs

    def run_epochs(*arguments, **named):
        asked.append(named["selection"])
        return real(*arguments, **named)

    monkeypatch.setattr(module, "run_epochs", run_epochs)
    estimator = CTREstimator("base", epochs=3, learning_rate=0.1, **tiny("base"))
    estimator.fit(data)
    assert asked == ["log_loss"]
    said = f"{NO_CLICK}; the best epoch is the one of the lowest log loss"
    assert said in capsys.readouterr().out.splitlines()
    assert math.isnan(estimator.validation_metrics_["auc"])
    assert estimator.fitted_.training["epochs"] > 1


def _no_constant(name):
    raise ValueError(name)


def test_metrics_are_json(tmp_path, monkeypatch):
    """That every reader takes; here they are numbers again."""
    run = RunFolder(tmp_path)
    content = {"model": "din", "test": {"auc": math.nan, "log_loss": 0.5}}
    run.write_metrics({**content, "speed": np.inf})
    text = run.metrics.read_text()
    plain = json.loads(text, parse_constant=_no_constant)
    assert plain == {"model": "din", "test": {"auc": None, "log_loss": 0.5}} | {
        "speed": None
    }
    found = run.read_metrics()
    assert math.isnan(found["test"]["auc"]) and found["test"]["log_loss"] == 0.5
    monkeypatch.setattr(compare, "markdown", str)
    monkeypatch.setattr(compare, "render", lambda result, plots: "")
    compare.write_report(
        {"arms": [{"auc": [math.nan, (0.5, -math.inf)]}]}, {}, tmp_path
    )
    text = (tmp_path / "comparison.json").read_text()
    assert json.loads(text, parse_constant=_no_constant) == {
        "arms": [{"auc": [None, [0.5, None]]}]
    }
