"""The runs of a comparison: each whole in its own folder, or run again."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pandas as pd

from hccm_tf.atomic import locked, write_text
from hccm_tf.data.feature_maps import METADATA
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.files import crc32, join
from hccm_tf.run_folder import RunFolder

LAST_BYTES, LAST_LINES = 8_192, 10


def run_once(run_dir, flags, contents, train, third=None):
    """The metrics of a run, which is trained unless it is there.

    `RUN/flags.json` says with which flags, and with which data and feature maps;
    `RUN/metrics.json`, written last, that the run is whole. One that was interrupted
    goes on from its last checkpoint.

    Args:
        run_dir: folder of the run.
        flags: flag → how it is written, without --run_dir.
        contents: of `contents_of`, for the same flags.
        train: function of a list of flags and `run_dir`.
        third: `pathlib.Path` of the data to train on in the place of --data_dir; only
            its name is kept, as it moves with the comparison.

    Returns:
        Content of `metrics.json`; `None` if the run failed.

    Raises:
        InputError: if the run was finished with other flags or data; names them.
    """
    folder = RunFolder(run_dir)
    before = json.loads(folder.arm.read_text()) if folder.arm.exists() else {}
    now = {**flags, **contents}
    if third is not None:
        now["third"] = third.name
        flags = {**flags, "data_dir": f"--data_dir={third}"}
    if folder.metrics.exists():
        _check_flags(run_dir, before, now)
    else:
        if now != before:
            # What is there is of another run, which did not end.
            with folder.training(resume=True):
                shutil.rmtree(folder.path)
        folder.path.mkdir(parents=True, exist_ok=True)
        write_text(folder.arm, json.dumps(now, indent=2) + "\n")
        resume = ["--resume"] * folder.exists()
        train([*flags.values(), *resume, f"--run_dir={run_dir}"], run_dir)
        if not folder.metrics.exists():
            return None
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    return folder.read_metrics()


def contents_of(flags):
    """What the data and the feature maps that flags name hold; dict of str.

    Args:
        flags: flag → how it is written.

    Raises:
        InputError: if a file of the data is missing or damaged.
        OSError: if there are no feature maps.
    """
    folders = {name: text.partition("=")[2] for name, text in flags.items()}
    checksums = {}
    if "data_dir" in folders:
        checksums["data_dir"] = DataFolder(folders["data_dir"]).checksum()
    if "feature_maps" in folders:
        checksums["feature_maps"] = crc32(join(folders["feature_maps"], METADATA))
    return {
        f"content of {name}": f"{folders[name]} of checksum {checksum:08x}"
        for name, checksum in checksums.items()
    }


def _check_flags(run_dir, before, now):
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise InputError(
                f"{run_dir} was finished with {before.get(name, f'no --{name}')}, now "
                f"{now.get(name, f'no --{name}')} is asked for: use the same flags and "
                "data, remove this run, or name another --run_dir"
            )


def subprocess_trainer(script):
    """Function that runs `script` with flags, its output in `RUN/log.txt`.

    Of a run that fails the last lines are printed.

    Args:
        script: path of `train_main.py`.
    """

    def train(flags, run_dir):
        path = RunFolder(run_dir).log
        with contextlib.ExitStack() as stack:
            try:
                # The run inherits the lock with its output: it holds as long as the
                # run lives, even if the comparison that started it was killed.
                log = stack.enter_context(locked(path))
            except BlockingIOError as error:
                raise InputError(
                    f"{run_dir}: another comparison, or a process that one left, "
                    "still trains this run; wait for it or end it"
                ) from error
            log.truncate(0)
            # The comparison's own is over seeds.
            command = [sys.executable, str(script), "--noverdict", *flags]
            # Where models of the user's own are found.
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            with _run_ends_with_this_process():
                run = subprocess.run(command, stdout=log, stderr=log, env=env)
                code = run.returncode
        if code:
            print(
                f"exit code {code}; the end of {path}:", *last_lines(path), sep="\n  "
            )

    return train


@contextlib.contextmanager
def _run_ends_with_this_process():
    """Makes SIGTERM an exception, at which `subprocess.run` ends what it runs."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def last_lines(path):
    """The last lines of a log that are not empty, list of str."""
    text = pathlib.Path(path).read_bytes()[-LAST_BYTES:].decode(errors="replace")
    # A progress bar goes back to the line's beginning.
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line.replace("\b", "") for line in lines if line][-LAST_LINES:]


def read_predictions(run_dir, test):
    """Predicted probabilities of a run, in the order of the data.

    Args:
        run_dir: folder of the run.
        test: data frame of the test split with `row`, `user_key` and `label`.

    Returns:
        float array `[N]`.

    Raises:
        InputError: if they are predictions of other data.
    """
    path = RunFolder(run_dir).predictions
    frame = pd.read_parquet(path)
    for name in ("row", "user_key", "label"):
        if not (len(frame) == len(test) and (frame[name].values == test[name]).all()):
            raise InputError(
                f"{path}: not of the test split of --data_dir, which has changed "
                "since; name another --run_dir"
            )
    return frame.ctr.to_numpy(float)


def read_history(run_dir):
    """Data frame with a row for each epoch, from `RUN/history.csv`; trees have none."""
    path = RunFolder(run_dir).history
    return pd.read_csv(path) if path.exists() else None
