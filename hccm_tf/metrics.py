"""AUC, GAUC, log loss and calibration of click predictions."""

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score


def gauc(labels, predictions, users, weights=None):
    """Group AUC: the per-user AUC weighted by the user's impressions.

    GAUC = Σ_u n_u AUC_u / Σ_u n_u over the users with both a click and a non-click
    (Zhou et al., Deep Interest Network, KDD '18, Eq. 8). AUC_u is the share of pairs of
    a click and a non-click in which the click has the higher prediction, ties counting
    half. With weights, n_u is the sum of them, and a pair counts as their product.

    Args:
        labels: 0/1, shape `[N]`.
        predictions: float, shape `[N]`.
        users: user ids, shape `[N]`.
        weights: float, shape `[N]`, of the impressions; `None` for 1 each.

    Returns:
        float, NaN if no user has both labels.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    frame = pd.DataFrame(
        {"user": users, "label": labels, "p": predictions, "weight": weights}
    ).sort_values(["user", "p"])
    frame["clicks"] = frame.weight * frame.label
    frame["others"] = frame.weight - frame.clicks
    below = frame.groupby("user").others.cumsum()
    ties = frame.groupby(["user", "p"], sort=False)
    # Up to the last of those that are tied, less half of what these are.
    won = below.groupby([frame.user, frame.p], sort=False).transform("last")
    frame["won"] = frame.clicks * (won - ties.others.transform("sum") / 2)
    sums = frame.groupby("user")[["weight", "clicks", "others", "won"]].sum()
    sums = sums[(sums.clicks > 0) & (sums.others > 0)]
    if sums.empty:
        return float("nan")
    auc = sums.won / (sums.clicks * sums.others)
    return float(np.average(auc, weights=sums.weight))


def evaluate_predictions(labels, predictions, users, weights=None):
    """Metrics of one split.

    Args:
        labels: 0/1, shape `[N]`.
        predictions: click probabilities, shape `[N]`.
        users: user ids, shape `[N]`.
        weights: float, shape `[N]`, of the impressions; `None` for 1 each.

    Returns:
        dict with `auc` and `log_loss` (scikit-learn's, on all predictions), `gauc`
        (see `gauc`), `calibration` (mean prediction ÷ click rate) and
        `impressions`. What needs both labels, a click or any impression is NaN where
        there is none with a weight.
    """
    labels = np.asarray(labels)
    predictions = np.asarray(predictions, np.float64)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)
    count, counts = labels.size, weights > 0
    users, weights = np.asarray(users)[counts], weights[counts]
    labels, predictions = labels[counts], predictions[counts]
    both = len(np.unique(labels)) == 2
    known, clicks = {"sample_weight": weights}, (weights * labels).sum()
    expected = (weights * predictions).sum()
    return {
        "auc": float(roc_auc_score(labels, predictions, **known)) if both else np.nan,
        "gauc": gauc(labels, predictions, users, weights),
        "log_loss": (
            float(log_loss(labels, predictions, labels=[0, 1], **known))
            if len(labels)
            else np.nan
        ),
        "calibration": float(expected / clicks) if clicks else np.nan,
        "impressions": int(count),
    }


def evaluate_frame(frame):
    """`evaluate_predictions` of a data frame `label, ctr, user_key, weight`."""
    return evaluate_predictions(
        frame.label, frame.ctr, frame.user_key, frame.get("weight")
    )
