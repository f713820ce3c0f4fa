r"""Training while processes are killed at random, against training undisturbed.

    python benchmarks/faults.py --data_dir=quickstart/data \
        --feature_maps=quickstart/maps --json=FILE

Each strategy trains `--model` with `configs/demo.flags` twice. In the second run,
between a checkpoint and up to `--kill_seconds` after it, one of the processes, any one,
is killed by SIGKILL, and whatever has ended is started again with --resume, as a
cluster would. Of the batches that were trained from the checkpoint before each epoch on
to the one after it, it says how many only the undisturbed run has (`lost`) and how many
more times this one has some (`twice`), which only parameter servers may. On one device
the predictions must be equal to the last bit.
"""

import collections
import itertools
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

import numpy as np
import pandas as pd
from absl import app, flags
from timing import report

from hccm_tf.errors import LOST_PROCESS, PREEMPTED
from hccm_tf.training.local_cluster import start, tasks

ROOT = pathlib.Path(__file__).parents[1]
# Strategy -> its workers and parameter servers.
CLUSTERS = {
    "one_device": None,
    "multi_worker_mirrored": (2, 0),
    "parameter_server": (2, 1),
}


def train(run_dir, strategy, kills=None):
    """Trains to the end.

    Args:
        run_dir: folder of the run.
        strategy: key of `CLUSTERS`.
        kills: `random.Random` that says what is killed when; `None` for nothing.

    Returns:
        `(killed, started_again, seconds)`.
    """
    cluster = CLUSTERS[strategy]
    configs = dict(tasks(*cluster)) if cluster else {"worker-0": ""}
    command = [
        str(ROOT / "benchmarks" / "logged_training.py"),
        f"--flagfile={ROOT / 'configs' / 'demo.flags'}",
        f"--strategy={strategy}",
        f"--model={FLAGS.model}",
        f"--data_dir={FLAGS.data_dir}",
        f"--feature_maps={FLAGS.feature_maps}",
        f"--run_dir={run_dir}",
        f"--epochs={FLAGS.epochs}",
        f"--patience={FLAGS.epochs}",
        "--noverdict",
        "--resume",
    ]
    os.environ["NOTES"] = str(_notes(run_dir))
    logs = {name: run_dir.with_name(f"{run_dir.name}-{name}.txt") for name in configs}
    killed, started_again, seen, kill_at = 0, 0, 0, np.inf
    begin = time.monotonic()
    processes = {}
    try:
        for name in configs:
            processes[name] = start(command, configs[name], logs[name])
        while next(iter(processes.values())).poll() != 0:
            time.sleep(0.1)
            newest = max(_checkpoints(run_dir), default=0)
            if kills is not None and newest > seen:
                # Each time something has been won, so that the run has an end.
                seen = newest
                kill_at = time.monotonic() + FLAGS.kill_seconds * kills.random()
            if time.monotonic() > kill_at:
                processes[kills.choice(list(processes))].kill()
                killed, kill_at = killed + 1, np.inf
            codes = {name: p.poll() for name, p in processes.items()}
            for name, code in codes.items():
                if code not in (None, 0, -signal.SIGKILL, PREEMPTED, LOST_PROCESS):
                    sys.exit(f"{name}: {logs[name].read_text()[-3000:]}")
            if any(codes.values()):
                for name, code in codes.items():
                    if code is not None:
                        processes[name] = start(command, configs[name], logs[name])
                        started_again += 1
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return killed, started_again, time.monotonic() - begin


def _checkpoints(run_dir):
    """Numbers of the checkpoints."""
    paths = run_dir.glob("checkpoints/*")
    return [int(path.name) for path in paths if path.name.isdigit()]


def _notes(run_dir):
    """Path of what `logged_training.py` notes."""
    return run_dir.with_suffix(".notes")


def batches(run_dir):
    """How often each `(epoch, batch)` was trained.

    An epoch that begins again does so from the checkpoint at its beginning.
    """
    if max(_checkpoints(run_dir)) != FLAGS.epochs:
        sys.exit(f"{run_dir.name}: a checkpoint within an epoch; take fewer data")
    epochs = {}
    for line in _notes(run_dir).read_text().splitlines():
        if line.startswith("epoch "):
            epoch = line
            epochs[epoch] = []
        else:
            epochs[epoch].append((epoch, line))
    return collections.Counter(itertools.chain(*epochs.values()))


def result(run_dir):
    """`(batches, test AUC, predictions)` of a finished run."""
    auc = json.loads((run_dir / "metrics.json").read_text())["test"]["auc"]
    frame = pd.read_parquet(run_dir / "test_predictions.parquet")
    return batches(run_dir), auc, frame.ctr


def main(argv):
    del argv
    # So that the processes end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for strategy in CLUSTERS:
            calm = pathlib.Path(folder) / f"{strategy}-calm"
            disturbed = pathlib.Path(folder) / f"{strategy}-disturbed"
            *_, calm_seconds = train(calm, strategy)
            kills = random.Random(FLAGS.seed)
            killed, started_again, seconds = train(disturbed, strategy, kills)
            expected, auc, ctr = result(calm)
            found, auc_found, ctr_found = result(disturbed)
            lost, twice = expected - found, found - expected
            rows[strategy] = {
                "kills": killed,
                "started again": started_again,
                "batches": expected.total(),
                "lost": lost.total(),
                "twice": twice.total(),
                "largest difference of predictions": (ctr - ctr_found).abs().max(),
                "AUC": auc_found,
                "AUC undisturbed": auc,
                "seconds": seconds,
                "seconds undisturbed": calm_seconds,
            }
            print(strategy, rows[strategy], flush=True)
            if not killed:
                sys.exit(f"{strategy}: nothing was killed; give more --epochs")
            if lost or (twice and strategy != "parameter_server"):
                sys.exit(f"{strategy}: lost {dict(lost)}, twice {dict(twice)}")
            if strategy == "one_device" and not ctr.equals(ctr_found):
                sys.exit("one_device: the resumed run's predictions differ")
    table = pd.DataFrame.from_dict(rows, orient="index")
    report({"processes killed at random": table}, {}, FLAGS.json)


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Of make quickstart.", required=True)
    flags.DEFINE_string("feature_maps", None, "Likewise.", required=True)
    flags.DEFINE_string("json", None, "File for the figures.")
    flags.DEFINE_string("model", "hccm", "Of train_main.py.")
    flags.DEFINE_integer("epochs", 4, "Passes of each run.", lower_bound=1)
    flags.DEFINE_integer("kill_seconds", 20, "After a checkpoint.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the kills.")
    app.run(main)
