"""The chief's part of training on parameter servers, its workers a function call."""

import os
import signal
import threading

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.dataset import Batches
from hccm_tf.models import build_model
from hccm_tf.optimizers import LazyAdam
from hccm_tf.run_folder import RunFolder
from hccm_tf.training import loop, parameter_servers
from hccm_tf.training.checkpoints import restore_checkpoint
from hccm_tf.training.preemption import Preempted
from tests.conftest import tiny

WORKERS = 2
BATCH_SIZE = 100
PARTS = 11  # of the shop's 1050 impressions, one batch each


class _Coordinator:
    """Calls a function where its result is asked for, one after the other.

    It traces the function where it is scheduled, as TensorFlow's does.
    """

    def __init__(self, strategy):
        self.strategy = strategy
        self.before_call = lambda: None
        self.done = lambda: False

    def schedule(self, function, args):
        function.get_concrete_function(*args)
        return _Result(self, function, args)


class _Result:
    def __init__(self, coordinator, function, args):
        self._coordinator, self._call = coordinator, (function, args)

    def fetch(self):
        self._coordinator.before_call()
        function, args = self._call
        return tf.nest.map_structure(lambda value: value.numpy(), function(*args))


@pytest.fixture(scope="module")
def make_trainer(shop):
    def trainer():
        keras.utils.set_random_seed(0)
        model = build_model("base", shop.schema, **tiny("base"))
        model.compile(LazyAdam(1e-2), "binary_crossentropy", jit_compile=False)
        strategy = tf.distribute.get_strategy()
        return parameter_servers.ParameterServerTrainer(
            model, strategy, Batches(shop.data, shop.schema, BATCH_SIZE)
        )

    coordinator = tf.distribute.coordinator
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coordinator, "ClusterCoordinator", _Coordinator)
        patch.setattr(parameter_servers, "num_tasks", lambda kind: WORKERS)
        yield trainer


@pytest.fixture(scope="module")
def straight(shop, make_trainer, tmp_path_factory):
    """The history and the predictions of a run that is not interrupted."""
    run, trainer = RunFolder(tmp_path_factory.mktemp("straight")), make_trainer()
    loop.run_epochs(trainer, shop.schema, 2, 2, run.path)
    return pd.read_csv(run.history), trainer.predict("test")


# Of the calls of the second epoch: one of its parts, the first part of validation.
@pytest.mark.parametrize("call", [3, PARTS])
def test_a_chief_that_is_preempted_goes_on(
    shop, tmp_path, make_trainer, straight, monkeypatch, call
):
    run = RunFolder(tmp_path)
    trainer, calls = make_trainer(), []
    validate, second = trainer.predict, []

    def before_call():
        if second:
            calls.append(0)
            if len(calls) == call + 1:
                os.kill(os.getpid(), signal.SIGTERM)
                # A part that takes longer than a cluster waits.
                threading.Event().wait()

    def predict(*arguments):
        frame = validate(*arguments)
        second.append(0)
        return frame

    monkeypatch.setattr(trainer, "predict", predict)
    trainer._coordinator.before_call = before_call
    assert trainer.steps == PARTS
    with pytest.raises(Preempted):
        loop.run_epochs(trainer, shop.schema, 2, 2, run.path)
    assert len(calls) == call + 1
    resumed = make_trainer()
    loop.run_epochs(resumed, shop.schema, 2, 2, run.path, resume=True)

    history, predictions = straight
    np.testing.assert_allclose(pd.read_csv(run.history), history, atol=1e-6)
    ctr = resumed.predict("test").ctr
    np.testing.assert_allclose(ctr, predictions.ctr, atol=1e-6)


def test_a_signal_while_tensorflow_traces_leaves_a_checkpoint(
    shop, tmp_path, make_trainer, monkeypatch
):
    """An exception there may come out as a `RuntimeError` of TensorFlow."""
    trainer, traced = make_trainer(), []
    train_step = trainer.model.train_step

    def train_and_receive(batch):
        os.kill(os.getpid(), signal.SIGTERM)
        result = train_step(batch)
        traced.append(0)
        return result

    monkeypatch.setattr(trainer.model, "train_step", train_and_receive)
    with pytest.raises(Preempted):
        loop.run_epochs(trainer, shop.schema, 2, 2, tmp_path)
    assert traced
    state, _ = restore_checkpoint(RunFolder(tmp_path).checkpoints, trainer.model)
    assert state["progress"]["epoch"] == state["progress"]["steps"] == 0


LOST = tf.errors.UnavailableError(None, None, "Socket closed: /job:worker/task:1")


def _lose(trainer, monkeypatch, times):
    """Each result cannot be fetched so often, as if its worker had just died."""
    lost = []

    def before_call():
        if len(lost) < times:
            lost.append(0)
            raise LOST
        del lost[:]

    trainer._coordinator.before_call = before_call
    monkeypatch.setattr(parameter_servers, "AGAIN_SECONDS", 0)


@pytest.mark.parametrize("finished", [False, True])
def test_a_result_that_dies_with_its_worker_is_asked_for_again(
    make_trainer, monkeypatch, finished
):
    expected = make_trainer().predict("validation")
    trainer = make_trainer()
    _lose(trainer, monkeypatch, 1 if finished else 3)
    # All functions may have been run again before it looks.
    trainer._coordinator.done = lambda: finished
    pd.testing.assert_frame_equal(trainer.predict("validation"), expected)


def test_what_ends_a_function_ends_the_chief(make_trainer, monkeypatch):
    trainer = make_trainer()
    _lose(trainer, monkeypatch, 5)
    asked = []

    def done():
        asked.append(0)
        if len(asked) == 2:
            raise tf.errors.AbortedError(None, None, "of a server")
        return False

    trainer._coordinator.done = done
    with pytest.raises(tf.errors.AbortedError, match="of a server"):
        trainer.predict("validation")
