"""Click rates of categories in training, as features: smoothed target encoding."""

import numpy as np

SMOOTHING = 20.0  # impressions at everyone's click rate, beside each category's own
FOLDS = 5
RARE = 100  # impressions, below which the trees are not told a category's own rate


def click_rates(indices, label, weight, size):
    """The click rate of each category, that of a rare one near everyone's.

        rate_c = (Σ_c w y + a r) / (Σ_c w + a),  r = Σ w y / Σ w

    with a, the `SMOOTHING`; a category without impressions has r.

    Args:
        indices: int `[N]`, of each impression's category.
        label: 0/1, `[N]`.
        weight: float `[N]`.
        size: number of categories.

    Returns:
        float `[size]`.
    """
    label, weight = np.asarray(label, float), np.asarray(weight, float)
    shown = np.bincount(indices, weight, size)
    clicks = np.bincount(indices, weight * label, size)
    prior = clicks.sum() / max(shown.sum(), 1e-9)
    return (clicks + SMOOTHING * prior) / (shown + SMOOTHING)


def out_of_fold(indices, label, weight, size, rng):
    """For each impression its category's click rate among others, as in cross-fitting.

    The rate of all would tell the impression's own label where a category is rare.

    Args:
        indices: as of `click_rates`, as the next three.
        label: likewise.
        weight: likewise.
        size: likewise.
        rng: `numpy.random.Generator`, which deals the impressions out to `FOLDS`.

    Returns:
        float `[N]`.
    """
    label, weight = np.asarray(label, float), np.asarray(weight, float)
    folds, result = rng.integers(FOLDS, size=len(indices)), np.empty(len(indices))
    for fold in range(FOLDS):
        own = folds == fold
        rates = click_rates(indices, label, np.where(own, 0.0, weight), size)
        result[own] = rates[indices[own]]
    return result


def rare_as_one(indices, size):
    """Where each category's index stands: its own or, of a rare one, 0, that of none.

    Where an item is shown a few times only, its rate among other impressions tells
    nothing, or with as many negatives drawn as there are clicks, the own label.

    Args:
        indices: int `[N]`, of training.
        size: number of categories.

    Returns:
        int `[size]`.
    """
    common = np.bincount(indices, minlength=size) >= RARE
    return np.where(common, np.arange(size), 0)
