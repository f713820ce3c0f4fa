"""Differences of AUC and log loss, with 95% intervals over users."""

import numpy as np
from sklearn.metrics import roc_auc_score

from hccm_tf.comparison.statistics import bootstrap_aucs, gain_test, weighted_auc

REPLICATES = 400
SMALLEST = 1e-7  # as far as a probability may be from 0 and 1, of 32 bits


def auc(rows, scores):
    """AUC of scores `[N]` for a data frame `label, weight`."""
    return float(roc_auc_score(rows.label, scores, sample_weight=rows.weight))


def auc_gain(rows, scores, base):
    """What scores gain over others on the same impressions, by a paired bootstrap.

    Args:
        rows: data frame `user_key, label, weight`.
        scores: float `[N]`.
        base: float `[N]`, what they are compared with.

    Returns:
        dict: `auc` and `base_auc`, their difference `gain`, and its `interval`.
    """
    aucs = auc(rows, scores), auc(rows, base)
    resampled = bootstrap_aucs(
        rows.label.to_numpy(),
        np.array([[scores], [base]]),
        rows.user_key.to_numpy(),
        REPLICATES,
        weights=rows.weight.to_numpy(),
    )
    return _difference(
        "auc", *aucs, aucs[0] - aucs[1], resampled[:, 0] - resampled[:, 1]
    )


def auc_gap(rows, base_rows):
    """How much higher the AUC of `ctr` is on some impressions than on others.

    Args:
        rows: data frame `user_key, label, weight, ctr`.
        base_rows: likewise, of other impressions, of the same users or others.

    Returns:
        as of `auc_gain`.
    """
    users = np.concatenate([rows.user_key, base_rows.user_key])
    users = np.unique(users, return_inverse=True)[1]
    parts = (rows, users[: len(rows)]), (base_rows, users[len(rows) :])
    of_weights = [
        weighted_auc(part.label, part.ctr, numbers, part.weight.to_numpy())
        for part, numbers in parts
    ]
    resampled = [
        of_weights[0](drawn) - of_weights[1](drawn) for drawn in _draws(users.max() + 1)
    ]
    aucs = [auc(part, part.ctr) for part, _ in parts]
    return _difference("auc", *aucs, aucs[0] - aucs[1], resampled)


def log_loss_gain(rows, constant):
    """How much lower the log loss of `ctr` is than that of a constant.

    Args:
        rows: data frame `user_key, label, weight, ctr`.
        constant: a probability.

    Returns:
        dict: `log_loss` and `base_log_loss`, by how much the former is lower, `gain`,
        and its `interval`.
    """
    clicks, weight = rows.label.to_numpy() == 1, rows.weight.to_numpy(float)
    _, users = np.unique(rows.user_key, return_inverse=True)

    def losses(ctr):
        ctr = np.clip(np.asarray(ctr, float), SMALLEST, 1 - SMALLEST)
        return -np.log(np.where(clicks, ctr, 1 - ctr))

    model, base = losses(rows.ctr), losses(np.full(len(rows), constant))
    of_users = np.bincount(users, weight * (base - model))
    weights = np.bincount(users, weight)
    resampled = [
        (drawn @ of_users) / (drawn @ weights) for drawn in _draws(len(weights))
    ]
    means = [float(np.average(values, weights=weight)) for values in (model, base)]
    return _difference("log_loss", *means, means[1] - means[0], resampled)


def _draws(num_users):
    """How often each user is drawn, int `[U]`, `REPLICATES` times."""
    rng = np.random.default_rng(0)
    for _ in range(REPLICATES):
        draw = rng.integers(num_users, size=num_users)
        yield np.bincount(draw, minlength=num_users)


def _difference(metric, value, base, gain, resampled):
    """A gain with its interval; `resampled` has gains, `[replicates]`."""
    interval, _ = gain_test([gain], np.asarray(resampled))
    return {metric: value, f"base_{metric}": base, "gain": gain, "interval": interval}
