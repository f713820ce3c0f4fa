"""Paired bootstrap of AUC gains over users and seeds, and Holm's correction."""

import numpy as np

REPLICATES = 2_000
LEVEL = 0.95


def weighted_auc(labels, scores, users):
    """Prepares the AUC of any reweighting of the users; sorts the scores once.

    AUC = Σ_i Σ_j w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / (Σ_i w_i Σ_j w_j) over
    clicks i and non-clicks j, the area under the weighted ROC curve. The inner sums are
    cumulative weights of the sorted non-clicks: O(N) for each call.

    Args:
        labels: 0/1, shape `[N]`.
        scores: float, shape `[N]`.
        users: int `[N]`, users numbered from 0.

    Returns:
        Function from the users' weights, shape `[U]`, to the AUC, a float; NaN if what
        has a weight has one label only.
    """
    labels, scores, users = map(np.asarray, (labels, scores, users))
    clicks, others = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    others = others[np.argsort(scores[others])]
    below = np.searchsorted(scores[others], scores[clicks], side="left")
    not_above = np.searchsorted(scores[others], scores[clicks], side="right")
    clicks, others = users[clicks], users[others]

    def auc(weights):
        won = np.concatenate([[0], np.cumsum(weights[others])])
        weight = weights[clicks]
        pairs = 2 * weight.sum() * won[-1]
        # Not a dot product: BLAS would start its threads for each of these short sums.
        won = (weight * (won[below] + won[not_above])).sum()
        return float(won / pairs) if pairs else float("nan")

    return auc


def bootstrap_aucs(labels, scores, users, replicates=REPLICATES, rng_seed=0):
    """AUCs of all arms in resamples of users and seeds, the same for every arm.

    A replicate draws U of the U users, and S - 1 of the S seeds, with replacement, and
    takes each arm's mean AUC over the drawn seeds. One seed less than there are makes
    the variance of a mean over few seeds unbiased (Rao and Wu, JASA 1988); S of S would
    have (S - 1) / S of it. A single seed is not resampled.

    Args:
        labels: 0/1, shape `[N]`.
        scores: float, shape `[arms, seeds, N]`.
        users: ids, shape `[N]`.
        replicates: number of resamples.
        rng_seed: of the draws.

    Returns:
        float array `[replicates, arms]`.
    """
    _, users = np.unique(users, return_inverse=True)
    num_users, num_seeds = users.max() + 1, len(scores[0])
    aucs = [[weighted_auc(labels, run, users) for run in arm] for arm in scores]
    rng = np.random.default_rng(rng_seed)
    result = np.empty((replicates, len(aucs)))
    for replicate in result:
        draw = rng.integers(num_users, size=num_users)
        weights = np.bincount(draw, minlength=num_users)
        seeds = rng.integers(num_seeds, size=max(num_seeds - 1, 1))
        seeds, times = np.unique(seeds, return_counts=True)
        for place, arm in enumerate(aucs):
            replicate[place] = np.average(
                [arm[seed](weights) for seed in seeds], weights=times
            )
    return result


def interval(gains, level=LEVEL):
    """The percentile interval of bootstrapped gains, `[low, high]`."""
    return np.nanquantile(gains, [(1 - level) / 2, (1 + level) / 2]).tolist()


def p_value(gains):
    """Two-sided p-value of bootstrapped gains against no gain.

    2 (1 + c) / (1 + n), at most 1, where c of the n resamples have a gain of 0 or less,
    or of 0 or more, whichever is rarer.
    """
    gains = np.asarray(gains)
    gains = gains[np.isfinite(gains)]
    rarer = min((gains <= 0).sum(), (gains >= 0).sum())
    return float(min(1.0, 2 * (1 + rarer) / (1 + len(gains))))


def holm(p_values):
    """Holm's step-down correction: p-values that hold for all the tests together.

    The k-th smallest of m is multiplied by m - k + 1, and is at least the one before it
    (Holm, Scandinavian Journal of Statistics 1979).
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.maximum.accumulate(p_values[order] * factors)
    return np.minimum(adjusted, 1.0).tolist()
