"""What a second worker gains, for the strategies of several processes.

    python benchmarks/scaling.py --json=FILE

Builds the TFRecords of a random log (see `build_examples.py`) and a feature-map store
of its items, 7x7x96, and trains `--model` with `train_main.py`, in turn, on
- one core: `one_device`, and one worker, for `parameter_server` with a server and the
  chief;
- two cores: two such workers, each with its server on one core, and a chief on both;
  and two runs of `one_device` that know nothing of each other, for what the machine
  itself costs (their CPU seconds are of twice the impressions).

One worker of `parameter_server` trains the log's file as one part, two as 16 parts,
each of which reads all of it.

The rate is that of the second of two epochs, without validation. CPU seconds are those
of the kinds of processes in this epoch, and megabytes what crossed the loopback
interface, validation included. Needs two idle cores and nothing else on the interface.
"""

import json
import os
import pathlib
import sys
import tempfile
import time

import pandas as pd
from absl import app, flags
from build_examples import make_log
from stores import make_store
from timing import ratio, report

from hccm_tf.data.folder import DataFolder
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.training.local_cluster import start, tasks
from hccm_tf.training.strategies import CLUSTER_STRATEGIES

EPOCHS, BATCH_SIZE = 2, 512
TICKS = os.sysconf("SC_CLK_TCK")
TRAIN_MAIN = pathlib.Path(__file__).parents[1] / "train_main.py"


def cpu_seconds(processes):
    """CPU time of each process so far, by its kind."""
    result = {}
    for name, process in processes.items():
        stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        kind = name.partition("-")[0]
        seconds = (int(user) + int(system)) / TICKS
        result[kind] = result.get(kind, 0) + seconds
    return result


def megabytes_sent():
    """What crossed the loopback interface so far."""
    (line,) = [
        line
        for line in pathlib.Path("/proc/net/dev").read_text().splitlines()
        if line.strip().startswith("lo:")
    ]
    return int(line.partition(":")[2].split()[0]) / 1e6


def run(folder, strategy, workers):
    """Trains once; rate, CPU seconds and megabytes of the last epoch."""
    servers = workers if strategy == "parameter_server" else 0
    cores = sorted(os.sched_getaffinity(0))[:workers]
    processes, run_dirs = {}, {}
    with tempfile.TemporaryDirectory() as runs:
        runs = pathlib.Path(runs)
        command = [
            TRAIN_MAIN,
            f"--strategy={strategy}",
            f"--model={FLAGS.model}",
            f"--data_dir={folder / 'data'}",
            f"--feature_maps={folder / 'maps'}",
            f"--batch_size={BATCH_SIZE}",
            f"--epochs={EPOCHS}",
            f"--patience={EPOCHS}",
            "--noverdict",
        ]
        try:
            for name, config in tasks(workers, servers):
                run_dir = runs / (name if strategy == "one_device" else "cluster")
                process = start(
                    [*command, f"--run_dir={run_dir}"], config, runs / "log.txt"
                )
                processes[name] = process
                place = int(name.partition("-")[2])
                mine = cores if name == "chief-0" else [cores[place]]
                os.sched_setaffinity(process.pid, mine)
                run_dirs.setdefault(run_dir, process)  # who writes there
            before = wait_for_checkpoints(run_dirs, EPOCHS - 1)
            cpu_before, sent_before = cpu_seconds(processes), megabytes_sent()
            after = wait_for_checkpoints(run_dirs, EPOCHS)
            cpu_after, sent_after = cpu_seconds(processes), megabytes_sent()
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
    examples = DataFolder(folder / "data").num_impressions("train")
    used = {kind: cpu_after[kind] - cpu_before[kind] for kind in cpu_after}
    steps = examples / BATCH_SIZE
    return {
        "rate": sum(examples / (after[run_dir] - before[run_dir]) for run_dir in after),
        "megabytes a batch": (sent_after - sent_before) / steps,
        **used,
    }


def wait_for_checkpoints(run_dirs, number):
    """Training seconds when each run wrote its checkpoint of this number.

    Args:
        run_dirs: dict of folder → process that writes there.
        number: int.
    """
    seconds = {}
    for run_dir, process in run_dirs.items():
        path = run_dir / "checkpoints" / f"{number:08d}" / "state.json"
        while not path.exists():
            if process.poll() is not None:
                sys.exit((run_dir.parent / "log.txt").read_text()[-5000:])
            time.sleep(0.05)
        state = json.loads(path.read_text())
        if state["progress"]["epoch"] != number:
            sys.exit("a checkpoint within an epoch, which takes too long: fewer --rows")
        seconds[run_dir] = state["progress"]["seconds"]
    return seconds


def main(argv):
    del argv
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two workers need two cores")
    strategies = ("one_device", *CLUSTER_STRATEGIES)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        items, log = make_log(folder, FLAGS.rows)
        # With several files a part would hold only some of the users, and its batches
        # fewer distinct photos, so that more parts would mean less work in a step.
        build_examples(items, log, folder / "data", num_shards=1, history_columns=())
        make_store(folder / "maps", pd.read_parquet(items).image.tolist())
        rows = [
            {
                "round": number,
                "arm": f"{strategy}, {workers}",
                **run(folder, strategy, workers),
            }
            for number in range(FLAGS.rounds)
            for strategy in strategies
            for workers in (1, 2)
        ]
    runs = pd.DataFrame(rows)
    kinds = ["chief", "worker", "ps"]
    runs["cpu"] = runs[kinds].sum(axis=1)
    rates, cpu = (
        runs.pivot(index="round", columns="arm")[name] for name in ("rate", "cpu")
    )
    ratios = {}
    for strategy in strategies:
        one, two = f"{strategy}, 1", f"{strategy}, 2"
        doubled = rates.assign(twice=2 * rates[one])
        ratios[f"{strategy}: two ÷ twice one"] = ratio(doubled, two, "twice")
        if strategy in CLUSTER_STRATEGIES:
            name = f"{strategy}: one worker ÷ one_device"
            ratios[name] = ratio(rates, one, "one_device, 1")
            ratios[f"{strategy}: CPU, two workers ÷ one"] = ratio(cpu, two, one)
    table = runs.groupby("arm").median()[["rate", "megabytes a batch", *kinds]]
    table = table.rename(columns={"rate": "examples/s"})
    for kind in ("chief", "ps"):
        share = table[kind] / table[kinds].sum(axis=1)
        table[f"{kind}, share of CPU"] = share
    tables = {"CPU seconds of an epoch": table, "examples/s of each round": rates.T}
    report(tables, ratios, FLAGS.json)


FLAGS = flags.FLAGS
flags.DEFINE_string("json", None, "Where to write the figures.")
flags.DEFINE_string("model", "hccm", "Of train_main.py.")
flags.DEFINE_integer("rows", 40_960, "Impressions of the log.", lower_bound=1000)
flags.DEFINE_integer("rounds", 3, "Runs of each arm.", lower_bound=1)

if __name__ == "__main__":
    app.run(main)
