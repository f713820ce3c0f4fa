"""Test AUC of each strategy on the SYNTHETIC demo shop, against one device.

    python benchmarks/strategies.py quickstart --run_dir=RUNS --json=FILE

Trains `--model` with configs/demo.flags and several seeds, dropout and normalisation as
in any run, on the data that `make quickstart` made:

- `one_device`: batches of `--batch_size`,
- `multi_worker_mirrored`: two workers in step, each with half such a batch,
- `parameter_server`: two workers at their own pace, each with whole batches.

Prints the mean AUC of each and, against one device, the difference of the means with
its 95% interval, Welch's. Runs that are there already are not repeated: other flags
need another RUNS.
"""

import json
import os
import pathlib
import sys

import pandas as pd
import scipy.stats
from absl import app, flags
from timing import report

from hccm_tf.training.local_cluster import run

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Strategy -> workers, parameter servers, and into how many a batch is divided.
STRATEGIES = {
    "one_device": (1, 0, 1),
    "multi_worker_mirrored": (2, 0, 2),
    "parameter_server": (2, 1, 1),
}
FLAGS = flags.FLAGS


def train(quickstart, run_dir, strategy, seed):
    """Trains with a cluster on this machine, unless that is done; the test AUC."""
    metrics = run_dir / "metrics.json"
    if not metrics.exists():
        workers, servers, division = STRATEGIES[strategy]
        command = [
            str(ROOT / "train_main.py"),
            f"--flagfile={ROOT / 'configs' / 'demo.flags'}",
            f"--data_dir={quickstart / 'data'}",
            f"--feature_maps={quickstart / 'maps'}",
            f"--run_dir={run_dir}",
            f"--strategy={strategy}",
            f"--model={FLAGS.model}",
            f"--batch_size={FLAGS.batch_size // division}",
            f"--seed={seed}",
            "--resume",
            "--noverdict",
        ]
        code = run(command, workers, servers, run_dir / "logs")
        if code:
            sys.exit(f"{' '.join(command)} ended with {code}")
    return json.loads(metrics.read_text())["test"]["auc"]


def main(argv):
    if len(argv) != 2:
        raise app.UsageError("one argument: the folder of make quickstart")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    folder = pathlib.Path(FLAGS.run_dir)
    # Seeds outermost: what is done early compares all strategies.
    rows = [
        {
            strategy: train(
                pathlib.Path(argv[1]), folder / f"{strategy}-{seed}", strategy, seed
            )
            for strategy in STRATEGIES
        }
        for seed in range(FLAGS.seeds)
    ]
    auc = pd.DataFrame(rows)
    table = auc.agg(["mean", "std"]).T
    for strategy in auc.columns[1:]:
        test = scipy.stats.ttest_ind(auc[strategy], auc.one_device, equal_var=False)
        interval = test.confidence_interval()
        table.loc[strategy, "difference"] = (auc[strategy] - auc.one_device).mean()
        table.loc[strategy, ["from", "to"]] = interval.low, interval.high
    report({"test AUC": table}, {}, FLAGS.json)


if __name__ == "__main__":
    flags.DEFINE_string("run_dir", None, "Folder for the runs.", required=True)
    flags.DEFINE_string("json", None, "File for the figures.")
    flags.DEFINE_string("model", "hccm", "Of train_main.py.")
    flags.DEFINE_integer("seeds", 5, "Runs of each strategy.", lower_bound=2)
    flags.DEFINE_integer("batch_size", 512, "Impressions in a batch.", lower_bound=2)
    app.run(main)
