"""AUC, GAUC, log loss and calibration of click predictions."""

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score


def gauc(labels, predictions, users):
    """Group AUC: the per-user AUC weighted by the user's impressions.

    GAUC = Σ_u n_u AUC_u / Σ_u n_u over the users with both a click and a non-click
    (Zhou et al., Deep Interest Network, KDD '18, Eq. 8). AUC_u comes from average
    ranks (Mann-Whitney), which equals the area under the ROC curve with ties.

    Args:
        labels: 0/1, shape `[N]`.
        predictions: float, shape `[N]`.
        users: user ids, shape `[N]`.

    Returns:
        float, NaN if no user has both labels.
    """
    frame = pd.DataFrame({"user": users, "label": labels, "p": predictions})
    frame["positive_rank"] = frame.groupby("user").p.rank() * frame.label
    sums = frame.groupby("user").agg(
        n=("label", "size"), clicks=("label", "sum"), ranks=("positive_rank", "sum")
    )
    sums = sums[(sums.clicks > 0) & (sums.clicks < sums.n)]
    if sums.empty:
        return float("nan")
    pairs = sums.clicks * (sums.n - sums.clicks)
    auc = (sums.ranks - sums.clicks * (sums.clicks + 1) / 2) / pairs
    return float(np.average(auc, weights=sums.n))


def evaluate_predictions(labels, predictions, users):
    """Metrics of one split.

    Args:
        labels: 0/1, shape `[N]`.
        predictions: click probabilities, shape `[N]`.
        users: user ids, shape `[N]`.

    Returns:
        dict with `auc` and `log_loss` (scikit-learn's, on all predictions), `gauc`
        (see `gauc`), `calibration` (mean prediction ÷ click rate) and
        `impressions`. What needs both labels is NaN when only one occurs.
    """
    labels = np.asarray(labels)
    predictions = np.asarray(predictions, np.float64)
    both = 0 < labels.mean() < 1
    return {
        "auc": float(roc_auc_score(labels, predictions)) if both else float("nan"),
        "gauc": gauc(labels, predictions, users),
        "log_loss": float(log_loss(labels, predictions, labels=[0, 1])),
        "calibration": float(predictions.sum() / max(labels.sum(), 1)),
        "impressions": int(labels.size),
    }
