import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from hccm_tf.metrics import evaluate_frame, evaluate_predictions, gauc


def _gauc_by_loop(labels, predictions, users, weights=None):
    weights = np.ones(len(labels)) if weights is None else weights
    total = weight = 0.0
    for user in np.unique(users):
        mine = (users == user) & (weights > 0)
        if set(labels[mine]) == {0, 1}:
            auc = roc_auc_score(
                labels[mine], predictions[mine], sample_weight=weights[mine]
            )
            total += weights[mine].sum() * auc
            weight += weights[mine].sum()
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


def test_no_weight_at_all():
    metrics = evaluate_predictions([0, 1], [0.2, 0.7], [1, 1], [0.0, 0.0])
    names = ("auc", "gauc", "log_loss", "calibration")
    assert np.isnan([metrics[name] for name in names]).all()


@pytest.mark.parametrize("label", [0, 1])
def test_one_label_only(label):
    labels, p = np.full(4, label), np.array([0.2, 0.4, 0.6, 0.9])
    metrics = evaluate_predictions(labels, p, [1, 1, 2, 2])
    assert np.isnan(metrics["auc"]) and np.isnan(metrics["gauc"])
    expected = -np.log(p if label else 1 - p).mean()
    assert metrics["log_loss"] == pytest.approx(expected)
    expected = p.mean() if label else np.nan
    assert metrics["calibration"] == pytest.approx(expected, nan_ok=True)


@pytest.fixture
def weights(sample):
    rng = np.random.default_rng(9)
    weights = rng.choice([0.0, 0.25, 1.0, 3.5], 400)
    users = sample[2]
    # Without those of no weight, the first of these users has no click.
    weights[(users == 5) & (sample[0] == 1)] = 0
    weights[users == 6] = 0
    return weights


def test_weighted_metrics_are_those_of_sklearn(sample, weights):
    labels, predictions, users = sample
    metrics = evaluate_predictions(*sample, weights)
    known = {"sample_weight": weights}
    assert metrics["auc"] == pytest.approx(roc_auc_score(labels, predictions, **known))
    assert metrics["log_loss"] == pytest.approx(log_loss(labels, predictions, **known))
    expected = _gauc_by_loop(*sample, weights)
    assert metrics["gauc"] == pytest.approx(expected, abs=1e-12)
    assert gauc(*sample, weights) == pytest.approx(expected, abs=1e-12)
    calibration = (weights @ predictions) / (weights @ labels)
    assert metrics["calibration"] == pytest.approx(calibration)
    assert metrics["impressions"] == 400
    plain = evaluate_predictions(*sample)
    for name in ("auc", "gauc", "log_loss", "calibration"):
        assert abs(metrics[name] - plain[name]) > 1e-4


def test_a_weight_counts_as_so_many_impressions(sample):
    times = np.random.default_rng(8).integers(0, 4, 400)
    repeated = [np.repeat(values, times) for values in sample]
    found, expected = (
        evaluate_predictions(*sample, times),
        evaluate_predictions(*repeated),
    )
    assert found.pop("impressions") == 400
    assert expected.pop("impressions") == times.sum()
    assert found == pytest.approx(expected, abs=1e-12)


def test_weights_of_one_are_no_weights(sample):
    expected = evaluate_predictions(*sample)
    assert evaluate_predictions(*sample, np.ones(400)) == pytest.approx(expected)
    assert evaluate_predictions(*sample, np.full(400, 7.0)) == pytest.approx(expected)


def test_one_label_only_has_a_weight():
    metrics = evaluate_predictions(
        np.array([0, 1, 0]), np.array([0.2, 0.4, 0.6]), [1, 1, 1], [1, 0, 2]
    )
    assert np.isnan(metrics["auc"]) and np.isnan(metrics["gauc"])
    expected = -(np.log(0.8) + 2 * np.log(0.4)) / 3
    assert metrics["log_loss"] == pytest.approx(expected)
    assert metrics["impressions"] == 3


def test_metrics_of_a_frame(sample, weights):
    names = ("label", "ctr", "user_key")
    frame = pd.DataFrame(dict(zip(names, sample, strict=True)))
    assert evaluate_frame(frame) == pytest.approx(evaluate_predictions(*sample))
    expected = evaluate_predictions(*sample, weights)
    assert evaluate_frame(frame.assign(weight=weights)) == pytest.approx(expected)
