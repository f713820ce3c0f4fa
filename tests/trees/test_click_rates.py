import numpy as np
import pytest

from hccm_tf.trees.click_rates import (
    FOLDS,
    RARE,
    SMOOTHING,
    click_rates,
    out_of_fold,
    rare_as_one,
)


def _rate(rows, prior):
    """Of `(label, weight)` pairs."""
    rows = list(rows)
    clicks = sum(label * weight for label, weight in rows) + SMOOTHING * prior
    return clicks / (sum(weight for _, weight in rows) + SMOOTHING)


@pytest.fixture(scope="module")
def impressions():
    rng = np.random.default_rng(0)
    label = (rng.random(300) < 0.3).astype(np.float32)
    return rng.integers(6, size=300), label, rng.choice([0, 0.5, 2], 300)


def test_click_rates(impressions):
    rates = click_rates(*impressions, 8)
    indices, label, weight = impressions
    prior = np.average(label, weights=weight)
    for category in range(8):
        own = indices == category
        expected = _rate(zip(label[own], weight[own], strict=True), prior)
        assert rates[category] == pytest.approx(expected)
    assert rates[7] == pytest.approx(prior) and len(set(rates)) == 7


def test_out_of_fold_knows_nothing_of_its_own_fold(impressions):
    indices, label, weight = impressions
    rates = out_of_fold(*impressions, 8, np.random.default_rng(5))
    folds = np.random.default_rng(5).integers(FOLDS, size=300)
    assert set(folds) == set(range(FOLDS))
    for place in range(0, 300, 7):
        others = folds != folds[place]
        prior = np.average(label[others], weights=weight[others])
        same = others & (indices == indices[place])
        expected = _rate(zip(label[same], weight[same], strict=True), prior)
        assert rates[place] == pytest.approx(expected)
    # Whatever its label is.
    flipped = np.where(np.arange(300) == 3, 1 - label, label)
    again = out_of_fold(indices, flipped, weight, 8, np.random.default_rng(5))
    assert again[3] == rates[3] and (again != rates).any()


def test_rare_categories_are_one():
    indices = np.repeat([1, 2, 3, 5], [RARE, RARE - 1, 3, 2 * RARE])
    assert rare_as_one(indices, 7).tolist() == [0, 1, 0, 0, 0, 5, 0]
