"""The demo shop over several seeds: gain of HCCM over DIN, and the control.

    python benchmarks/demo_seeds.py quickstart --seeds=3

Trains `din`, `hccm`, and `hccm` with the photos dealt out to other items, each with
configs/demo.flags on the data that `make quickstart` made, with its feature maps unless
--feature_maps names others. Runs that are there already are not repeated. Prints each
run's test AUC, the share of the oracle's AUC headroom over DIN that HCCM captures, and
95% intervals of both gains from a bootstrap over users and seeds. With shuffled photos
the gain must be gone.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
from absl import app, flags
from sklearn.metrics import roc_auc_score

ROOT = pathlib.Path(__file__).resolve().parents[1]
ARMS = {
    "din": ["--model=din"],
    "hccm": ["--model=hccm"],
    "hccm, photos shuffled": ["--model=hccm", "--shuffle_images"],
}
RESAMPLES = 500
FLAGS = flags.FLAGS


def run(folder, feature_maps, arm, seed):
    """Test predictions of one run, trained unless they are there."""
    name = f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
    # The baseline has no images, so every store shares its runs.
    run_dir = folder / "seeds" / ("" if arm == "din" else feature_maps.name) / name
    if not (run_dir / "metrics.json").exists():
        command = [
            sys.executable,
            str(ROOT / "train_main.py"),
            f"--flagfile={ROOT / 'configs' / 'demo.flags'}",
            f"--data_dir={folder / 'data'}",
            f"--feature_maps={feature_maps}",
            f"--run_dir={run_dir}",
            f"--seed={seed}",
            *ARMS[arm],
        ]
        with open(folder / "seeds.log", "a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log)
    return pd.read_parquet(run_dir / "test_predictions.parquet")


def resampled_gains(frames, baseline, arm, rng):
    """Mean AUC gains over seeds, for resampled seeds and users."""
    seeds = sorted(frames)
    users = frames[seeds[0]][baseline].user_key.to_numpy()
    rows_of = list(pd.Series(users).groupby(users).indices.values())
    gains = []
    for _ in range(RESAMPLES):
        draw = rng.integers(len(rows_of), size=len(rows_of))
        rows = np.concatenate([rows_of[user] for user in draw])
        gain = []
        for seed in rng.choice(seeds, len(seeds)):
            labels = frames[seed][baseline].label.to_numpy()[rows]
            gain.append(
                roc_auc_score(labels, frames[seed][arm].ctr.to_numpy()[rows])
                - roc_auc_score(labels, frames[seed][baseline].ctr.to_numpy()[rows])
            )
        gains.append(np.mean(gain))
    return gains


def main(argv):
    """Runs the command line."""
    folder = pathlib.Path(argv[1])
    feature_maps = pathlib.Path(FLAGS.feature_maps or folder / "maps")
    frames = {
        seed: {arm: run(folder, feature_maps, arm, seed) for arm in ARMS}
        for seed in range(FLAGS.seeds)
    }
    oracle = json.loads((folder / "shop" / "oracle.json").read_text())["auc"]
    auc = pd.DataFrame(
        {
            seed: {arm: roc_auc_score(f.label, f.ctr) for arm, f in arms.items()}
            for seed, arms in frames.items()
        }
    )
    print(f"test AUC by seed; the oracle has {oracle:.4f}\n{auc.round(4)}")
    share = (auc.loc["hccm"] - auc.loc["din"]) / (oracle - auc.loc["din"])
    print(f"share of the headroom captured by hccm: {share.round(3).tolist()}")
    rng = np.random.default_rng(0)
    for arm in list(ARMS)[1:]:
        low, high = np.quantile(
            resampled_gains(frames, "din", arm, rng), [0.025, 0.975]
        )
        gain = (auc.loc[arm] - auc.loc["din"]).mean()
        print(f"{arm}: AUC gain over din {gain:+.4f}, 95% [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    flags.DEFINE_integer("seeds", 3, "Number of seeds.", lower_bound=1)
    flags.DEFINE_string("feature_maps", None, "Other feature maps of the photos.")
    app.run(main)
