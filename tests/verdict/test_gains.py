import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from hccm_tf.verdict import gains


@pytest.fixture(autouse=True)
def few_replicates(monkeypatch):
    monkeypatch.setattr(gains, "REPLICATES", 50)


@pytest.fixture(scope="module")
def rows():
    """200 impressions of 12 users with weights; `ctr` knows something of the labels."""
    rng = np.random.default_rng(0)
    label = (rng.random(200) < 0.3).astype(int)
    frame = {
        "user_key": rng.integers(12, size=200) * 10**12,
        "label": label,
        "weight": rng.choice([0.0, 0.5, 2.0], 200),
        "ctr": np.clip(0.2 * label + 0.7 * rng.random(200), 0, 1),
    }
    return pd.DataFrame(frame)


def _resamples(users):
    """For each replicate, how often each of `users` is drawn, per impression."""
    names, numbers = np.unique(users, return_inverse=True)
    rng = np.random.default_rng(0)
    for _ in range(gains.REPLICATES):
        drawn = rng.integers(len(names), size=len(names))
        yield np.bincount(drawn, minlength=len(names))[numbers]


def _check(found, value, base, gain, resampled):
    """Against a normal interval around the gain."""
    assert (found["base_auc" if "auc" in found else "base_log_loss"]) == (
        pytest.approx(base)
    )
    assert found["auc" if "auc" in found else "log_loss"] == pytest.approx(value)
    assert found["gain"] == pytest.approx(gain)
    reach = 1.959964 * np.std(resampled, ddof=1)
    assert found["interval"] == pytest.approx([gain - reach, gain + reach], rel=1e-4)


def test_a_gain_of_auc(rows):
    base = np.random.default_rng(1).random(200)
    own = {"sample_weight": rows.weight}
    value = roc_auc_score(rows.label, rows.ctr, **own)
    other = roc_auc_score(rows.label, base, **own)
    found = gains.auc_gain(rows, rows.ctr, base)
    assert found["auc"] == pytest.approx(value)
    assert found["gain"] == pytest.approx(value - other)
    low, high = found["interval"]
    assert low < found["gain"] < high and 0.05 < high - low < 0.5


def test_a_gap_of_auc_between_impressions(rows):
    first, second = rows[:120], rows[120:]
    resampled = []
    for times in _resamples(rows.user_key):
        weights = times * rows.weight
        aucs = [
            roc_auc_score(part.label, part.ctr, sample_weight=weights[part.index])
            for part in (first, second)
        ]
        resampled.append(aucs[0] - aucs[1])
    aucs = [
        roc_auc_score(part.label, part.ctr, sample_weight=part.weight)
        for part in (first, second)
    ]
    _check(gains.auc_gap(first, second), *aucs, aucs[0] - aucs[1], resampled)


def test_a_gain_of_log_loss(rows):
    constant = np.full(200, 0.3)

    def losses(weights):
        return [
            log_loss(rows.label, ctr, sample_weight=weights)
            for ctr in (rows.ctr, constant)
        ]

    resampled = [
        np.subtract(*losses(times * rows.weight)[::-1])
        for times in _resamples(rows.user_key)
    ]
    value, base = losses(rows.weight)
    found = gains.log_loss_gain(rows, 0.3)
    _check(found, value, base, base - value, resampled)


def test_a_certain_mistake_is_finite(rows):
    found = gains.log_loss_gain(rows.assign(ctr=1.0 - rows.label), 0.0)
    assert np.isfinite([found["log_loss"], *found["interval"]]).all()
