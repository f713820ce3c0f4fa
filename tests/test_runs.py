"""A run that exists is kept as it is, and trained by one process at a time."""

import signal

import pytest

from hccm_tf.errors import InputError
from hccm_tf.runs import RunFolder
from tests.training.cluster import run_script

HOLDS_A_RUN = "holds a run already; go on with resume"
IS_TRAINED = "another process trains this run"
# Trains until it is ended, or asked to.
TRAINING = """
import sys
from hccm_tf.runs import RunFolder
with RunFolder(sys.argv[1]).training(resume=False):
    print("trains", flush=True)
    sys.stdin.read()
"""


def _content(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", ["model", "checkpoints", "history", "metrics"])
def test_an_existing_run_is_refused_and_untouched(tmp_path, name):
    folder = RunFolder(tmp_path / "run")
    with folder.training(resume=False):
        pass
    path = getattr(folder, name)
    if name == "checkpoints":
        path = path / "00000001" / "state.json"
        path.parent.mkdir(parents=True)
    path.write_text("of the first run")
    before = _content(folder.path)
    with pytest.raises(InputError, match=HOLDS_A_RUN), folder.training(resume=False):
        pytest.fail("it trains")
    assert _content(folder.path) == before
    with folder.training(resume=True):
        assert _content(folder.path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_without_a_run_is_trained_in(tmp_path, resume):
    folder = RunFolder(tmp_path / "new" / "run")
    with folder.training(resume):
        assert folder.path.is_dir()
    # What was printed there, or by TensorBoard, is none.
    folder.log.write_text("")
    folder.logs.mkdir()
    with folder.training(resume=False):
        folder.history.write_text("")
    assert folder.exists()


def test_two_processes_do_not_train_one_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    process = run_script(TRAINING, folder.path)
    try:
        assert process.stdout.readline() == "trains\n", process.communicate()[1]
        # Whether or not it has left something yet.
        folder.history.write_text("")
        for resume in (False, True):
            with pytest.raises(InputError, match=IS_TRAINED), folder.training(resume):
                pytest.fail("it trains")
        # Another run is another run.
        with RunFolder(tmp_path / "other").training(resume=False):
            pass
    finally:
        # A process that is killed holds nothing.
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with folder.training(resume=True):
        pass
