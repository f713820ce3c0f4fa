"""The figures of a comparison, as `comparison.json` has them."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from hccm_tf.comparison.arms import pairs
from hccm_tf.comparison.search import written
from hccm_tf.comparison.slices import slice_auc
from hccm_tf.comparison.statistics import (
    REPLICATES,
    bootstrap_aucs,
    gain_test,
    holm,
)
from hccm_tf.oracle import METRICS

COSTS = ("examples_per_second", "seconds", "epochs", "parameters")


def mean_and_sd(values):
    """Mean and sample standard deviation, `None` for a single value."""
    values = np.asarray(values, float)
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "sd": sd}


def compare_arms(arms, test, scores):
    """Gains of AUC with intervals and p-values, for each of `arms.pairs`.

    Holm's correction is over all but the controls: of those no gain is claimed, and a
    correction would make it easier for them to show none.

    Args:
        arms: list of `Arm`.
        test: data frame of the test split with `user_key`, `label` and `weight`.
        scores: float, shape `[arms, seeds, N]`.

    Returns:
        list of dicts.
    """
    labels, users, weights = (
        test[n].to_numpy() for n in ("label", "user_key", "weight")
    )
    observed = np.array(
        [[roc_auc_score(labels, r, sample_weight=weights) for r in a] for a in scores]
    )
    resampled = bootstrap_aucs(labels, scores, users, weights=weights)
    rows = []
    for pair in pairs(arms):
        by_seed = observed[pair.arm] - observed[pair.base]
        gains = resampled[:, pair.arm] - resampled[:, pair.base]
        interval, p = gain_test(by_seed, gains)
        rows.append(
            {
                "arm": arms[pair.arm].label,
                "base": arms[pair.base].label,
                "kind": pair.kind,
                "gain": float(by_seed.mean()),
                "gain_by_seed": by_seed.tolist(),
                "interval": interval,
                "p": p,
                "p_holm": None,
            }
        )
    tested = [row for row in rows if row["kind"] != "control"]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
    return rows


def collect(trained, seeds, scores, test, slices, oracle):
    """All figures of a comparison.

    Args:
        trained: list of `TrainedArm`, none failed.
        seeds: list of int.
        scores: float, shape `[arms, seeds, N]`.
        test: data frame of the test split with `user_key`, `label` and `weight`.
        slices: dict name → bool mask `[N]`.
        oracle: content of `oracle.json`, or `None`.

    Returns:
        dict that JSON can hold.
    """
    aucs_by_slice = []
    for name, mask in slices.items():
        aucs = [slice_auc(test[mask], arm[:, mask]) for arm in scores]
        aucs_by_slice.append(
            {
                "slice": name,
                "impressions": int(mask.sum()),
                "auc": [auc and mean_and_sd(auc) for auc in aucs],
            }
        )
    return {
        "seeds": seeds,
        "impressions": len(test),
        "users": test.user_key.nunique(),
        "replicates": REPLICATES,
        "arms": [_arm(one) for one in trained],
        "comparisons": compare_arms([one.arm for one in trained], test, scores),
        "slices": aucs_by_slice,
        "oracle": oracle,
    }


def _arm(trained):
    """The figures of one `TrainedArm`, dict."""
    settings = trained.trials[trained.chosen]["settings"]
    metrics = pd.DataFrame([run["test"] for run in trained.metrics])
    costs = pd.DataFrame(
        [
            {**run["training"], "examples_per_second": run["examples_per_second"]}
            for run in trained.metrics
        ]
    )
    return {
        "label": trained.arm.label,
        "flags": list({**trained.arm.flags, **written(trained.arm, settings)}.values()),
        "settings": settings,
        "chosen_trial": trained.chosen,
        "trials": trained.trials,
        "test": {name: mean_and_sd(metrics[name]) for name in METRICS},
        "training": {name: mean_and_sd(costs[name]) for name in COSTS},
        "runs": trained.metrics,
    }
