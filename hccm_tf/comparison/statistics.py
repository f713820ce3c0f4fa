"""Paired bootstrap of AUC gains over users and seeds, their test, Holm's correction."""

import numpy as np
from scipy import stats

REPLICATES = 2_000
LEVEL = 0.95


def weighted_auc(labels, scores, users, impression_weights=None):
    """Prepares the AUC of any reweighting of the users; sorts the scores once.

    AUC = Σ_i Σ_j w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / (Σ_i w_i Σ_j w_j) over
    clicks i and non-clicks j, the area under the weighted ROC curve; w is the user's
    weight times the impression's. The inner sums are cumulative weights of the sorted
    non-clicks: O(N) for each call.

    Args:
        labels: 0/1, shape `[N]`.
        scores: float, shape `[N]`.
        users: int `[N]`, users numbered from 0.
        impression_weights: float `[N]`; `None` for 1 each.

    Returns:
        Function from the users' weights, shape `[U]`, to the AUC, a float; NaN if what
        has a weight has one label only.
    """
    labels, scores, users = map(np.asarray, (labels, scores, users))
    if impression_weights is None:
        impression_weights = np.ones(len(labels), int)
    clicks, others = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    others = others[np.argsort(scores[others])]
    below = np.searchsorted(scores[others], scores[clicks], side="left")
    not_above = np.searchsorted(scores[others], scores[clicks], side="right")
    own, others_own = impression_weights[clicks], impression_weights[others]
    clicks, others = users[clicks], users[others]

    def auc(weights):
        won = np.concatenate([[0], np.cumsum(weights[others] * others_own)])
        weight = weights[clicks] * own
        pairs = 2 * weight.sum() * won[-1]
        # Not a dot product: BLAS would start its threads for each of these short sums.
        won = (weight * (won[below] + won[not_above])).sum()
        return float(won / pairs) if pairs else float("nan")

    return auc


def bootstrap_aucs(labels, scores, users, replicates=REPLICATES, weights=None):
    """AUCs of all arms in resamples of users and seeds, the same for every arm.

    A replicate draws U of the U users, and S - 1 of the S seeds, with replacement, and
    takes each arm's mean AUC over the drawn seeds. One seed less than there are makes
    the variance of a mean over few seeds unbiased (Rao and Wu, JASA 1988); S of S would
    have (S - 1) / S of it. A single seed is not resampled.

    The variance is what this is for: of few seeds, the quantiles are those of a few
    values. See `gain_test`.

    Args:
        labels: 0/1, shape `[N]`.
        scores: float, shape `[arms, seeds, N]`.
        users: ids, shape `[N]`.
        replicates: number of resamples.
        weights: float `[N]`, of the impressions; `None` for 1 each.

    Returns:
        float array `[replicates, arms]`.
    """
    _, users = np.unique(users, return_inverse=True)
    num_users, num_seeds = users.max() + 1, len(scores[0])
    aucs = [
        [weighted_auc(labels, run, users, weights) for run in arm] for arm in scores
    ]
    rng = np.random.default_rng(0)
    result = np.empty((replicates, len(aucs)))
    for replicate in result:
        draw = rng.integers(num_users, size=num_users)
        drawn = np.bincount(draw, minlength=num_users)
        seeds = rng.integers(num_seeds, size=max(num_seeds - 1, 1))
        seeds, times = np.unique(seeds, return_counts=True)
        for place, arm in enumerate(aucs):
            replicate[place] = np.average(
                [arm[seed](drawn) for seed in seeds], weights=times
            )
    return result


def gain_test(gain_by_seed, resampled):
    """Interval of a gain, and its p-value against no gain.

    t = gain / sd(resampled gains) has about the t distribution of
    (S - 1) (V / V_S)^2 degrees of freedom, where V is the variance of the resampled
    gains and V_S the part of it that is due to the S seeds, the squared standard error
    of their mean (Satterthwaite, Biometrics 1946; the users are so many that their part
    counts as known). A single seed's part is not known and left out.

    Args:
        gain_by_seed: float `[S]`, on the whole test split.
        resampled: float `[replicates]`, gains of `bootstrap_aucs`.

    Returns:
        `(interval, p)`: `[low, high]` and the two-sided p-value.
    """
    gain, count = np.mean(gain_by_seed), len(gain_by_seed)
    variance = np.nanvar(resampled, ddof=1)
    if variance == 0:
        return [float(gain)] * 2, float(gain == 0)
    freedom = np.inf
    if count > 1 and np.ptp(gain_by_seed):
        of_seeds = np.var(gain_by_seed, ddof=1) / count
        # The bootstrap's own noise must not make the part larger than the whole.
        freedom = (count - 1) * max(variance / of_seeds, 1.0) ** 2
    deviation = np.sqrt(variance)
    reach = stats.t.ppf((1 + LEVEL) / 2, freedom) * deviation
    p = 2 * stats.t.sf(abs(gain) / deviation, freedom)
    return [float(gain - reach), float(gain + reach)], float(p)


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
