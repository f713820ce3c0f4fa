import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from hccm_tf.metrics import evaluate_predictions, gauc


def _gauc_by_loop(labels, predictions, users):
    total = weight = 0.0
    for user in np.unique(users):
        mine = users == user
        if 0 < labels[mine].mean() < 1:
            total += mine.sum() * roc_auc_score(labels[mine], predictions[mine])
            weight += mine.sum()
    return total / weight


@pytest.fixture(params=[0, 1, 2])
def sample(request):
    rng = np.random.default_rng(request.param)
    users = rng.integers(-5, 30, 400)
    labels = (rng.random(400) < 0.3).astype(int)
    labels[users == 3] = 0
    labels[users == 4] = 1
    # One decimal: many ties.
    predictions = np.round(0.3 * labels + 0.6 * rng.random(400) + 0.05, 1)
    return labels, predictions, users


def test_gauc_equals_a_loop_over_users(sample):
    assert gauc(*sample) == pytest.approx(_gauc_by_loop(*sample), abs=1e-12)


def test_gauc_of_string_users(sample):
    labels, predictions, users = sample
    assert gauc(labels, predictions, users.astype(str)) == pytest.approx(gauc(*sample))


def test_gauc_is_nan_when_no_user_has_both_labels():
    assert np.isnan(gauc([0, 0, 1], [0.1, 0.2, 0.3], [1, 1, 2]))


def test_metrics_are_those_of_sklearn(sample):
    labels, predictions, users = sample
    metrics = evaluate_predictions(*sample)
    assert metrics["auc"] == pytest.approx(roc_auc_score(labels, predictions))
    assert metrics["log_loss"] == pytest.approx(log_loss(labels, predictions))
    assert metrics["gauc"] == pytest.approx(_gauc_by_loop(*sample))
    assert metrics["calibration"] == pytest.approx(predictions.mean() / labels.mean())
    assert metrics["impressions"] == 400


@pytest.mark.parametrize("label", [0, 1])
def test_one_label_only(label):
    labels, p = np.full(4, label), np.array([0.2, 0.4, 0.6, 0.9])
    metrics = evaluate_predictions(labels, p, [1, 1, 2, 2])
    assert np.isnan(metrics["auc"]) and np.isnan(metrics["gauc"])
    expected = -np.log(p if label else 1 - p).mean()
    assert metrics["log_loss"] == pytest.approx(expected)
