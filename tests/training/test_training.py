import json
import os
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.pipeline import make_dataset
from hccm_tf.models import build_model
from hccm_tf.training import loop
from hccm_tf.training.evaluation import evaluate, predict
from tests.conftest import TINY

# Two runs with one seed and one with another, in one process with ordered sums.
SEEDS = """
import json, sys
import tensorflow as tf
tf.config.experimental.enable_op_determinism()
from hccm_tf import CTREstimator
data, maps, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
results = []
for seed in (3, 3, 4):
    estimator = CTREstimator("hcm", maps, epochs=1, batch_size=525, seed=seed,
                             model_options=options).fit(data)
    results.append({**estimator.evaluate(data),
                    "sum": sum(float(abs(w).sum())
                               for w in estimator.model_.get_weights())})
print(json.dumps(results))
"""


def _sets(shop, batch_size=256):
    return [
        make_dataset(shop.data, split, shop.schema, batch_size)
        for split in ("train", "validation")
    ]


def _model(shop, **options):
    keras.utils.set_random_seed(0)
    return build_model("base", shop.schema, **{**TINY, **options})


def test_a_seed_repeats_a_run(shop):
    run = subprocess.run(
        [sys.executable, "-c", SEEDS, shop.data, shop.maps, json.dumps(TINY)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    one, same, other = json.loads(run.stdout.splitlines()[-1])
    assert one == same
    assert one["auc"] != other["auc"] and one["sum"] != other["sum"]


def test_a_loss_that_is_not_finite_names_the_step(shop):
    train_set, validation_set = _sets(shop)

    def spoil(step, batch):
        inputs, label, user = batch
        price = tf.where(step == 2, np.float32(np.inf), inputs["price"])
        return {**inputs, "price": price}, label, user

    spoilt = train_set.enumerate().map(spoil)
    with pytest.raises(FloatingPointError, match=r"step 3: the loss is (nan|inf)"):
        loop.train(_model(shop), spoilt, validation_set, shop.schema, 1e-3, 1, 1)


def test_training_lowers_the_loss(shop):
    train_set, validation_set = _sets(shop, 64)
    model = _model(shop)
    before = evaluate(model, train_set, shop.schema)
    result = loop.train(model, train_set, validation_set, shop.schema, 1e-2, 3, 3)
    after = evaluate(model, train_set, shop.schema)
    assert after["log_loss"] < before["log_loss"] - 0.02
    assert after["auc"] > before["auc"] + 0.05
    assert result["epochs"] == 3 and result["seconds"] > 0


def test_predictions_are_in_the_order_of_the_data(shop):
    model = _model(shop)
    frame = predict(model, _sets(shop, 64)[1], shop.schema)
    part = shop.log[shop.log.split == "validation"]
    np.testing.assert_array_equal(frame.label, part.label)
    np.testing.assert_array_equal(frame.user_key, part.user_id)
    whole = next(iter(_sets(shop, 150)[1]))[0]
    np.testing.assert_allclose(frame.ctr, model(whole, training=False)[:, 0], atol=1e-6)


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4)])
def test_early_stopping_keeps_the_best_epoch(shop, monkeypatch, patience, epochs):
    train_set, validation_set = _sets(shop)
    scores, weights = [0.6, 0.7, 0.65, 0.64, 0.9], []

    def scripted(model, dataset, schema):
        weights.append([np.array(w) for w in model.get_weights()])
        return {"auc": scores[len(weights) - 1], "gauc": 0.0, "log_loss": 0.0}

    monkeypatch.setattr("hccm_tf.training.callbacks.evaluate", scripted)
    model = _model(shop)
    result = loop.train(
        model, train_set, validation_set, shop.schema, 1e-2, 5, patience
    )
    assert result["epochs"] == len(weights) == epochs
    for kept, best in zip(model.get_weights(), weights[1], strict=True):
        np.testing.assert_array_equal(kept, best)
    assert any((a != b).any() for a, b in zip(weights[1], weights[2], strict=True))


def test_resume_goes_on_where_a_run_was_interrupted(shop, tmp_path, monkeypatch):
    train_set, validation_set = _sets(shop)
    straight = _model(shop, id_dropout=0.0)
    loop.train(
        straight,
        train_set,
        validation_set,
        shop.schema,
        1e-2,
        3,
        3,
        tmp_path / "straight",
    )
    calls = []

    def interrupted(model, dataset, schema):
        calls.append(model)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(model, dataset, schema)

    arguments = (train_set, validation_set, shop.schema, 1e-2, 3, 3, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("hccm_tf.training.callbacks.evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.train(_model(shop, id_dropout=0.0), *arguments)
    resumed = _model(shop, id_dropout=0.0)
    result = loop.train(resumed, *arguments, resume=True)
    assert result["epochs"] == 1
    expected = predict(straight, validation_set, shop.schema).ctr
    np.testing.assert_allclose(
        predict(resumed, validation_set, shop.schema).ctr, expected, atol=1e-5
    )
    epochs, whole = (
        pd.read_csv(tmp_path / name / "history.csv") for name in ("run", "straight")
    )
    assert epochs.epoch.tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(epochs, whole, atol=1e-5)


def test_without_resume_a_run_starts_anew(shop, tmp_path):
    train_set, validation_set = _sets(shop)
    for _ in range(2):
        model = _model(shop)
        result = loop.train(
            model, train_set, validation_set, shop.schema, 1e-2, 2, 2, tmp_path
        )
        assert result["epochs"] == 2
        assert len(pd.read_csv(tmp_path / "history.csv")) == 2
