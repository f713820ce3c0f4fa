import fcntl
import json
import pathlib
import shutil
import signal

import numpy as np
import pandas as pd
import pytest

from hccm_tf.comparison.runs import (
    contents_of,
    read_predictions,
    run_once,
    subprocess_trainer,
)
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.run_folder import RunFolder

FLAGS = {"model": "--model=din", "seed": "--seed=3"}
SCRIPT = """
import json, pathlib, sys
print("progress\\rmore progress\\rline one\\n\\nlast line", flush=True)
folder = pathlib.Path(sys.argv[-1].partition("=")[2])
(folder / "checkpoints").mkdir(exist_ok=True)
if "--seed=4" in sys.argv:
    raise SystemExit("out of luck")
(folder / "metrics.json").write_text(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def train(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    return subprocess_trainer(tmp_path / "script.py")


def test_a_run_is_trained_once(tmp_path, train):
    run_dir = tmp_path / "runs" / "din"
    expected = ["--noverdict", *FLAGS.values(), f"--run_dir={run_dir}"]
    assert run_once(run_dir, FLAGS, {}, train) == expected
    assert run_once(run_dir, FLAGS, {}, None) == expected
    assert (run_dir / "log.txt").read_text().endswith("last line\n")


def test_an_interrupted_run_goes_on(shop, tmp_path):
    def dies(arguments, run_dir):
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        raise KeyboardInterrupt

    def dies_at_once(arguments, run_dir):
        raise KeyboardInterrupt

    def ends(arguments, run_dir):
        (run_dir / "metrics.json").write_text(json.dumps(arguments))

    data = shutil.copytree(shop.data, tmp_path / "data")
    records = pathlib.Path(DataFolder(data).files("train")[0])

    def other_data():
        records.write_bytes(records.read_bytes() + b"more")

    flags = {**FLAGS, "data_dir": f"--data_dir={data}"}
    for name, goes_on in (("a", True), ("b", False)):
        with pytest.raises(KeyboardInterrupt):
            run_once(tmp_path / name, flags, contents_of(flags), dies)
        if not goes_on:
            other_data()
        arguments = run_once(tmp_path / name, flags, contents_of(flags), ends)
        assert ("--resume" in arguments) == goes_on
        assert not (tmp_path / name / "checkpoints").exists()
    # A checkpoint of other data is gone, even if no other has taken its place.
    for train in (dies, dies_at_once):
        other_data()
        with pytest.raises(KeyboardInterrupt):
            run_once(tmp_path / "c", flags, contents_of(flags), train)
    assert not (tmp_path / "c" / "checkpoints").exists()
    # One that ended before its first checkpoint begins again, as trees always do.
    assert "--resume" not in run_once(tmp_path / "c", flags, contents_of(flags), ends)
    with pytest.raises(InputError, match="finished with .*data of checksum.*, now"):
        run_once(tmp_path / "b", flags, contents_of(flags), ends)


def test_a_run_on_a_third_goes_on_where_its_comparison_was_moved(tmp_path):
    def trains(words, run_dir):
        seen.append(words)
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        if len(seen) > 1:
            (run_dir / "metrics.json").write_text("{}")

    seen, flags = [], {**FLAGS, "data_dir": "--data_dir=DATA"}
    for folder in ("old", "new"):
        run_dir, third = tmp_path / folder / "run", tmp_path / folder / "third-1"
        run_once(run_dir, flags, {}, trains, third)
        if folder == "old":
            (tmp_path / "old").rename(tmp_path / "new")
    assert ["--resume" in words for words in seen] == [False, True]
    assert [f"--data_dir={tmp_path}/{name}/third-1" for name in ("old", "new")] == [
        word for words in seen for word in words if "data_dir" in word
    ]
    with pytest.raises(InputError, match="finished with third-1, now third-2"):
        run_once(run_dir, flags, {}, trains, third.with_name("third-2"))


def test_other_flags_are_named(tmp_path, train):
    run_once(tmp_path / "run", FLAGS, {}, train)
    for changed, words in (
        ({**FLAGS, "seed": "--seed=5"}, "finished with --seed=3, now --seed=5"),
        ({**FLAGS, "products": "--products"}, "no --products, now --products"),
        ({"model": "--model=din"}, "with --seed=3, now no --seed"),
    ):
        with pytest.raises(InputError, match=words):
            run_once(tmp_path / "run", changed, {}, train)


def test_a_failed_run_shows_its_last_lines_and_is_run_again(tmp_path, train, capsys):
    flags = {**FLAGS, "seed": "--seed=4"}
    assert run_once(tmp_path / "run", flags, {}, train) is None
    printed = capsys.readouterr().out.split("\n  ")
    assert printed[0].startswith("exit code 1")
    assert printed[1:] == ["line one", "last line", "out of luck\n"]
    # Not finished, so its flags may change.
    assert run_once(tmp_path / "run", FLAGS, {}, train)
    assert "out of luck" not in (tmp_path / "run" / "log.txt").read_text()
    assert json.loads((tmp_path / "run" / "flags.json").read_text()) == FLAGS


def test_a_run_that_still_lives_is_not_trained_twice(tmp_path, train):
    run = RunFolder(tmp_path)
    run.arm.write_text(json.dumps(FLAGS))
    with open(run.log, "w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="still trains this run"):
            run_once(tmp_path, FLAGS, {}, train)
    assert run_once(tmp_path, FLAGS, {}, train)


def test_a_run_that_is_trained_elsewhere_is_not_removed(tmp_path, train):
    folder = RunFolder(tmp_path / "run")
    with folder.training(resume=False):
        folder.checkpoints.mkdir()
        with pytest.raises(InputError, match="another process trains this run"):
            run_once(folder.path, FLAGS, {}, train)
        assert folder.checkpoints.is_dir()
    assert run_once(folder.path, FLAGS, {}, train)


def test_a_run_ends_with_its_comparison(tmp_path):
    (tmp_path / "script.py").write_text(
        "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)\nsignal.pause()\n"
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        subprocess_trainer(tmp_path / "script.py")([], tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before
    with open(tmp_path / "log.txt") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_predictions_of_other_data(tmp_path):
    test = pd.DataFrame({"row": [7, 9, 8], "user_key": [4, 4, 9], "label": [0, 1, 0]})
    path = tmp_path / "test_predictions.parquet"
    test.assign(label=np.float32(test.label), ctr=[0.1, 0.2, 0.3]).to_parquet(path)
    assert read_predictions(tmp_path, test).tolist() == [0.1, 0.2, 0.3]
    for other in (
        test[:2],
        test.assign(label=0),
        test.assign(user_key=4),
        test.assign(row=[9, 7, 8]),
    ):
        with pytest.raises(InputError, match="test split of --data_dir"):
            read_predictions(tmp_path, other)


def test_a_run_finds_what_its_comparison_finds(tmp_path, monkeypatch):
    """As a model of the user's own in the working directory of `hccm-train`."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "my_own_model.py").touch()
    (tmp_path / "script.py").write_text("import my_own_model\n" + SCRIPT)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    train = subprocess_trainer(tmp_path / "script.py")
    assert run_once(tmp_path / "run", FLAGS, {}, train) is not None
