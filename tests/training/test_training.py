import collections.abc
import dataclasses
import functools
import json
import os
import signal

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.dataset import Batches
from hccm_tf.data.schema import Schema
from hccm_tf.metrics import evaluate_predictions
from hccm_tf.models import build_model
from hccm_tf.optimizers import LazyAdam
from hccm_tf.training import loop
from hccm_tf.training.evaluation import infer_function, predict
from hccm_tf.training.preemption import Preempted
from hccm_tf.training.synchronous import SynchronousTrainer
from tests import processes
from tests.conftest import tiny

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
                             **options).fit(data)
    results.append({**estimator.evaluate(data),
                    "sum": sum(float(abs(w).sum())
                               for w in estimator.model_.get_weights())})
print(json.dumps(results))
"""


def _model(shop, **options):
    keras.utils.set_random_seed(0)
    return build_model("base", shop.schema, **tiny("base", **options))


@dataclasses.dataclass(frozen=True)
class _Changed(Batches):
    """Batches with `change` mapped over (step, batch) of the first epoch."""

    change: collections.abc.Callable | None = None

    def dataset(self, split, epoch=None, **arguments):
        dataset = super().dataset(split, epoch, **arguments)
        return dataset.enumerate().map(self.change) if epoch == 0 else dataset


@functools.cache
def _batches(data, size):
    """Of a data folder; what parses them is traced once."""
    return Batches(data, Schema.load(data), size)


def _trainer(shop, model, batch_size=256, learning_rate=1e-2, change=None):
    """A trainer of one device."""
    batches = _batches(shop.data, batch_size)
    if change is not None:
        batches = _Changed(shop.data, shop.schema, batch_size, change=change)
    model.compile(LazyAdam(learning_rate), "binary_crossentropy", jit_compile=False)
    return SynchronousTrainer(model, tf.distribute.get_strategy(), batches)


def _metrics(trainer, split="validation"):
    frame = trainer.predict(split)
    return evaluate_predictions(frame.label, frame.ctr, frame.user_key)


def test_a_seed_repeats_a_run(shop):
    options = tiny("hcm", image_sides="candidate")
    words = ["-c", SEEDS, shop.data, shop.maps, json.dumps(options)]
    run = processes.run(words, check=True)
    one, same, other = json.loads(run.stdout.splitlines()[-1])
    assert one == same
    assert one["auc"] != other["auc"] and one["sum"] != other["sum"]


def test_a_loss_that_is_not_finite_names_the_step(shop):
    def spoil(step, batch):
        inputs, *rest = batch
        price = tf.where(step == 2, np.float32(np.inf), inputs["price"])
        return {**inputs, "price": price}, *rest

    trainer = _trainer(shop, _model(shop), change=spoil)
    with pytest.raises(FloatingPointError, match=r"step 3: the loss is (nan|inf)"):
        loop.run_epochs(trainer, shop.schema, 1, 1)


def test_training_lowers_the_loss(shop):
    trainer = _trainer(shop, _model(shop), 64)
    before = _metrics(trainer, "train")
    result = loop.run_epochs(trainer, shop.schema, 3, 3)
    after = _metrics(trainer, "train")
    assert after["log_loss"] < before["log_loss"] - 0.02
    assert after["auc"] > before["auc"] + 0.05
    assert result["epochs"] == 3 and result["seconds"] > 0


def test_predictions_are_in_the_order_of_the_data(shop):
    model = _model(shop)
    trainer = _trainer(shop, model, 64)
    part = shop.log[shop.log.split == "validation"]
    inputs = next(iter(Batches(shop.data, shop.schema, 150).dataset("validation")))[0]
    expected = model(inputs, training=False)[:, 0, 0]
    batches = _batches(shop.data, 64)
    for frame in (
        trainer.predict("validation"),
        predict(infer_function(model), batches, "validation"),
    ):
        np.testing.assert_array_equal(frame.row, part.index)
        np.testing.assert_array_equal(frame.label, part.label)
        np.testing.assert_array_equal(frame.user_key, part.user_id)
        np.testing.assert_allclose(frame.ctr, expected, atol=1e-6)


def test_predictions_trace_the_model_once(shop):
    """For all splits, sizes of batches and lengths of histories."""
    infer = infer_function(_model(shop))
    for size in (32, 150):
        for split in ("validation", "test"):
            predict(infer, _batches(shop.data, size), split)
    assert infer.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("patience", "epochs", "selection"),
    [(1, 3, "auc"), (2, 4, "auc"), (1, 3, "log_loss")],
)
def test_early_stopping_keeps_the_best_epoch(
    shop, monkeypatch, patience, epochs, selection
):
    scores, weights = [0.6, 0.7, 0.65, 0.64, 0.9], []
    model = _model(shop)

    def scripted(frame):
        weights.append([np.array(w) for w in model.get_weights()])
        score = scores[len(weights) - 1]
        if selection == "log_loss":
            return {"auc": np.nan, "gauc": np.nan, "log_loss": 1 - score}
        return {"auc": score, "gauc": 0.0, "log_loss": 0.0}

    monkeypatch.setattr(loop, "evaluate_frame", scripted)
    result = loop.run_epochs(
        _trainer(shop, model), shop.schema, 5, patience, selection=selection
    )
    assert result["epochs"] == len(weights) == epochs
    for kept, best in zip(model.get_weights(), weights[1], strict=True):
        np.testing.assert_array_equal(kept, best)
    assert any((a != b).any() for a, b in zip(weights[1], weights[2], strict=True))


def test_early_stopping_goes_on_where_it_was(shop, tmp_path, monkeypatch):
    scores, weights = [0.6, 0.7, 0.65, None, 0.64, 0.9], []

    def scripted(frame):
        score = scores[len(weights)]
        weights.append([np.array(w) for w in model.get_weights()])
        if score is None:
            raise KeyboardInterrupt
        return {"auc": score, "gauc": 0.0, "log_loss": 0.0}

    monkeypatch.setattr(loop, "evaluate_frame", scripted)
    model = _model(shop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_epochs(_trainer(shop, model), shop.schema, 9, 2, tmp_path)
    for _ in range(2):
        # The second time there is nothing left to train.
        model = _model(shop)
        trainer = _trainer(shop, model)
        result = loop.run_epochs(trainer, shop.schema, 9, 2, tmp_path, resume=True)
        assert result["epochs"] == 4 and len(weights) == 5
        for kept, best in zip(model.get_weights(), weights[1], strict=True):
            np.testing.assert_array_equal(kept, best)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history.val_auc.tolist() == [0.6, 0.7, 0.65, 0.64]


def test_a_prediction_is_ended_between_batches(shop):
    looks = []

    def check():
        looks.append(0)
        if len(looks) == 3:
            raise Preempted

    with pytest.raises(Preempted):
        _trainer(shop, _model(shop), batch_size=50).predict("test", check)


def test_sigterm_saves_after_the_step(shop, tmp_path, monkeypatch):
    seen = []

    def receive(callback, batch, logs=None):
        seen.append(batch)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.StopOnNonFinite, "on_train_batch_end", receive)
    with pytest.raises(Preempted):
        loop.run_epochs(_trainer(shop, _model(shop)), shop.schema, 2, 2, tmp_path)
    (state,) = tmp_path.glob("checkpoints/*/state.json")
    assert json.loads(state.read_text())["progress"]["steps"] == len(seen) == 3
    # It goes on with the steps that are left.
    trainer = _trainer(shop, _model(shop))
    loop.run_epochs(trainer, shop.schema, 1, 2, tmp_path, resume=True)
    assert len(seen) == trainer.steps
    # A worker that does not write takes part until the others have ended.
    del seen[:]
    loop.run_epochs(_trainer(shop, _model(shop)), shop.schema, 1, 2, writes=False)
    assert len(seen) == trainer.steps
