"""Daily training on the SYNTHETIC demo shop: warm starts against starting anew.

    python benchmarks/warm_start.py quickstart --model=hccm --json=FILE

Cuts the log of the shop that `make quickstart` made into five spans of equal length,
here called days. A model trained on the first is what three days begin with; each day
trains on its own impressions, the newest tenth of them for validation, and is tested on
the next day's. With configs/hccm.flags, from one day to the next:

- `scratch`: a new model on all impressions so far,
- `shrink`: `--warm_start=shrink` from the day before, on all impressions so far,
- `all`, `all_but_ids`: `--warm_start` from the day before, on the day's impressions,
- `not trained`: the model that `all` begins with, as it is; its time is what a command
  takes without training.

Prints the test AUC, the mean of the seeds, and the seconds of the whole command, their
median. Runs that are there already are not repeated.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
from absl import app, flags
from timing import report, seconds

from hccm_tf.preparation.examples.build import build_examples

ROOT = pathlib.Path(__file__).resolve().parents[1]
DAYS = 5
SO_FAR = ("scratch", "shrink")
ARMS = (*SO_FAR, "all", "all_but_ids", "not trained")
FLAGS = flags.FLAGS


def build(folder, log, items, day, so_far):
    """The data folder of a day: its own impressions, or all so far."""
    path = folder / "data" / f"{day}-{'all' if so_far else 'day'}"
    if path.exists():
        return path
    log = log[log.day <= day + 1]
    newest = log.timestamp > log.timestamp[log.day == day].quantile(0.9)
    splits = {
        "test": log.day > day,
        "validation": (log.day == day) & newest,
        "train": (log.day == day) | so_far,
    }
    split = np.select(list(splits.values()), list(splits), "history")
    log = log.drop(columns="day").assign(split=split)
    build_examples(items, log, path, max_history=50)
    return path


def run(folder, maps, data, name, arguments, seed):
    """`(test AUC, seconds)` of a command, and its run's folder."""
    run_dir = folder / f"{FLAGS.model}-{seed}" / name.replace(" ", "-")
    done = run_dir / "seconds.json"
    if not done.exists():
        command = [
            sys.executable,
            str(ROOT / "train_main.py"),
            f"--flagfile={ROOT / 'configs' / 'hccm.flags'}",
            f"--model={FLAGS.model}",
            f"--feature_maps={maps}",
            f"--data_dir={data}",
            f"--run_dir={run_dir}",
            f"--seed={seed}",
            "--noverdict",
            *arguments,
        ]
        # One that was interrupted begins anew, because its time counts.
        shutil.rmtree(run_dir, ignore_errors=True)
        with open(folder / "log", "a") as log:
            time = seconds(
                lambda: subprocess.run(command, check=True, stdout=log, stderr=log)
            )
        done.write_text(json.dumps(time))
    metrics = json.loads((run_dir / "metrics.json").read_text())
    return (metrics["test"]["auc"], json.loads(done.read_text())), run_dir


def three_days(folder, maps, data, seed):
    """`(day, arm)` → `(test AUC, seconds)` of one seed."""
    _, start = run(folder, maps, data[0, True], "0-scratch", [], seed)
    yesterday, results = dict.fromkeys(ARMS, start), {}
    for day in range(1, DAYS - 1):
        before = dict(yesterday)
        for arm in ARMS:
            arguments = []
            if arm == "not trained":
                arguments = [f"--warm_start_from={before['all']}", "--epochs=0"]
            elif arm != "scratch":
                arguments = [f"--warm_start_from={before[arm]}", f"--warm_start={arm}"]
            results[day, arm], yesterday[arm] = run(
                folder,
                maps,
                data[day, arm in SO_FAR],
                f"{day}-{arm}",
                arguments,
                seed,
            )
    return results


def main(argv):
    """Runs the command line."""
    shop = pathlib.Path(argv[1])
    folder = pathlib.Path(FLAGS.output_dir or shop / "days")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    log = pd.read_csv(shop / "shop" / "impressions.csv")
    log["day"] = pd.cut(log.timestamp, DAYS, labels=False)
    items = pd.read_csv(shop / "shop" / "items.csv")
    data = {(0, True): build(folder, log, items, 0, True)}
    for day in range(1, DAYS - 1):
        for so_far in (True, False):
            data[day, so_far] = build(folder, log, items, day, so_far)
    seeds = [
        three_days(folder, shop / "maps", data, seed) for seed in range(FLAGS.seeds)
    ]
    tables = {}
    for title, place, average in (("test AUC", 0, np.mean), ("seconds", 1, np.median)):
        table = pd.DataFrame(index=pd.RangeIndex(1, DAYS - 1, name="day"), columns=ARMS)
        for day, arm in seeds[0]:
            table.loc[day, arm] = average([s[day, arm][place] for s in seeds])
        table = table.astype(float)
        tables[f"{title}, synthetic shop, {FLAGS.model}, {FLAGS.seeds} seeds"] = table
    report(tables, {}, FLAGS.json)


if __name__ == "__main__":
    flags.DEFINE_string("model", "hccm", "Model.")
    flags.DEFINE_integer("seeds", 1, "Number of seeds.", lower_bound=1)
    flags.DEFINE_string("output_dir", None, "Folder of the days; default: with it.")
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
