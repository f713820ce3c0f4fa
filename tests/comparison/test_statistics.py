import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from hccm_tf.comparison.statistics import (
    bootstrap_aucs,
    gain_test,
    holm,
    weighted_auc,
)


def _sample(rng, decimals=1):
    users = rng.integers(12, size=200)
    labels = (rng.random(200) < 0.3).astype(int)
    # One decimal: many ties.
    return labels, np.round(0.2 * labels + rng.random(200), decimals), users


@pytest.mark.parametrize("decimals", [1, 9])
def test_weighted_auc_is_that_of_sklearn(decimals):
    rng = np.random.default_rng(0)
    labels, scores, users = _sample(rng, decimals)
    auc = weighted_auc(labels, scores, users)
    assert auc(np.ones(12)) == pytest.approx(roc_auc_score(labels, scores))
    for _ in range(5):
        weights = rng.integers(4, size=12)
        expected = roc_auc_score(labels, scores, sample_weight=weights[users])
        assert auc(weights) == pytest.approx(expected, abs=1e-12)


def test_weights_of_users_and_of_impressions_multiply():
    rng = np.random.default_rng(7)
    labels, scores, users = _sample(rng)
    own = rng.choice([0.0, 0.5, 2.0], 200)
    auc = weighted_auc(labels, scores, users, own)
    for weights in (np.ones(12), *rng.integers(4, size=(5, 12))):
        known = {"sample_weight": own * weights[users]}
        expected = roc_auc_score(labels, scores, **known)
        assert auc(weights) == pytest.approx(expected, abs=1e-12)


def test_auc_of_one_label_is_nan():
    auc = weighted_auc([0, 1, 1], [0.1, 0.2, 0.3], [0, 1, 1])
    assert auc(np.array([1, 1])) == 1
    assert np.isnan(auc(np.array([0, 2]))) and np.isnan(auc(np.array([1, 0])))


@pytest.mark.parametrize("weighted", [False, True])
def test_bootstrap_equals_repeated_rows(weighted):
    rng = np.random.default_rng(1)
    labels, _, users = _sample(rng)
    scores = np.round(labels * 0.3 + rng.random((2, 3, 200)), 2)
    # Any ids, in any order.
    ids = rng.permutation(10**6)[users] * 10**12
    weights = rng.choice([0.0, 0.5, 2.0], 200) if weighted else np.ones(200)
    draws = np.random.default_rng(0)
    expected = []
    names = np.unique(ids)
    for _ in range(6):
        drawn = names[draws.integers(12, size=12)]
        rows = np.concatenate([np.flatnonzero(ids == name) for name in drawn])
        seeds = draws.integers(3, size=2)
        known = {"sample_weight": weights[rows]}
        expected.append(
            [
                np.mean(
                    [roc_auc_score(labels[rows], arm[s][rows], **known) for s in seeds]
                )
                for arm in scores
            ]
        )
    known = {"weights": weights} if weighted else {}
    found = bootstrap_aucs(labels, scores, ids, 6, **known)
    np.testing.assert_allclose(found, expected)


def test_equal_rankings_show_no_gain():
    rng = np.random.default_rng(2)
    labels, scores, users = _sample(rng)
    arms = np.array([[scores, scores + 1], [scores**3, scores + 1]])
    aucs = bootstrap_aucs(labels, arms, users, 50)
    assert gain_test([0.0, 0.0], aucs[:, 1] - aucs[:, 0]) == ([0, 0], 1)
    assert aucs[:, 0].std() > 0


def test_seeds_vary_as_their_mean_does():
    # One user: all that varies is the draw of seeds.
    rng = np.random.default_rng(3)
    labels = np.arange(100) % 2
    scores = rng.random((1, 4, 100))
    aucs = [roc_auc_score(labels, run) for run in scores[0]]
    resampled = bootstrap_aucs(labels, scores, np.zeros(100), 2_000)
    assert resampled.var() == pytest.approx(np.var(aucs, ddof=1) / 4, rel=0.1)
    one = bootstrap_aucs(labels, scores[:, :1], np.zeros(100), 10)
    np.testing.assert_allclose(one, aucs[0])


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_the_truth(seeds):
    # Arms alike but for noise of users, of seeds and of both: no gain, 95% intervals.
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(100):
        users = np.repeat(np.arange(40), 10)
        labels = (rng.random(400) < 0.4).astype(int)
        taste = rng.normal(size=(2, 1, 40))[..., users]
        strength = rng.normal(0.8, 0.3, (2, seeds, 1))
        scores = strength * labels + 0.3 * taste * labels
        scores += rng.normal(size=(2, seeds, 400))
        aucs = bootstrap_aucs(labels, scores, users, 60)
        by_seed = [
            roc_auc_score(labels, b) - roc_auc_score(labels, a)
            for a, b in zip(*scores, strict=True)
        ]
        (low, high), p = gain_test(by_seed, aucs[:, 1] - aucs[:, 0])
        covered.append(low <= 0 <= high)
        assert covered[-1] == (p > 0.05)
    # The share's standard error is 0.02.
    assert 0.9 <= np.mean(covered) < 1


def test_gains_that_vary_by_seed_alone_have_students_test():
    rng = np.random.default_rng(5)
    gains = rng.normal(0.4, 1, 5)
    draws = rng.integers(5, size=(200_000, 4))
    interval, p = gain_test(gains, gains[draws].mean(axis=1))
    expected = stats.ttest_1samp(gains, 0)
    assert p == pytest.approx(expected.pvalue, rel=0.02)
    low, high = expected.confidence_interval(0.95)
    assert interval == pytest.approx([low, high], rel=0.02)


def test_gains_that_vary_by_users_alone_have_the_normal_test():
    rng = np.random.default_rng(6)
    resampled = rng.normal(1, 0.5, 200_000)
    resampled[0] = np.nan
    for gains in ([1.0], [1.0, 1.0], [0.99, 1.01]):
        interval, p = gain_test(gains, resampled)
        assert interval == pytest.approx([0.02, 1.98], abs=0.01)
        assert p == pytest.approx(2 * stats.norm.sf(2), rel=0.03)
    assert gain_test([-1.0], -resampled)[1] == pytest.approx(
        gain_test([1.0], resampled)[1]
    )


def test_holm_by_hand():
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which is not below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1, 1] and holm([0.2]) == [0.2] and holm([]) == []
