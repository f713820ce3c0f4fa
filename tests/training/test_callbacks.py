"""TensorBoard's logs by step, as TensorBoard reads them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hccm_tf.training.callbacks import StepLog

STEPS = 110


def _train(callback, losses, first=(0, 0)):
    """Does what the training loop does, with given losses `[epochs, steps]`."""
    callbacks = keras.callbacks.CallbackList(
        [callback], model=keras.Sequential(), epochs=len(losses), steps=STEPS
    )
    callbacks.on_train_begin()
    for epoch in range(first[0], len(losses)):
        callbacks.on_epoch_begin(epoch)
        for step in range(first[1] if epoch == first[0] else 0, STEPS):
            callbacks.on_train_batch_begin(step)
            # As Keras has it, over what was before an interruption too.
            logs = {"loss": tf.constant(np.mean(losses[epoch, : step + 1]))}
            callbacks.on_train_batch_end(step, logs)
        callbacks.on_epoch_end(epoch, {"loss": 0.5, "val_auc": 0.6 + epoch})
    callbacks.on_train_end()


def _read(folder):
    """Tag → step → value."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: {
            event.step: float(tf.make_ndarray(event.tensor_proto))
            for event in events.Tensors(tag)
        }
        for tag in events.Tags()["tensors"]
    }


def test_losses_are_of_the_last_steps_and_auc_of_the_epochs_end(tmp_path):
    losses = np.random.default_rng(0).random((2, STEPS))
    _train(StepLog(tmp_path), losses)
    found, flat = _read(tmp_path), losses.reshape(-1)
    windows = [(0, 50), (50, 100), (100, 110), (110, 160), (160, 210), (210, 220)]
    assert set(found) == {"loss", "val_auc"}
    assert list(found["loss"]) == [end for _, end in windows]
    expected = [flat[begin:end].mean() for begin, end in windows]
    assert list(found["loss"].values()) == pytest.approx(expected, rel=1e-4)
    assert found["val_auc"] == pytest.approx({110: 0.6, 220: 1.6})


def test_steps_go_on_after_an_interruption(tmp_path):
    losses = np.random.default_rng(1).random((2, STEPS))
    _train(StepLog(tmp_path), losses, first=(1, 13))
    found, flat = _read(tmp_path), losses.reshape(-1)
    # The first of the steps that are left tells what was before them.
    windows = [(110 + 14, 160), (160, 210), (210, 220)]
    assert list(found["loss"]) == [end for _, end in windows]
    expected = [flat[begin:end].mean() for begin, end in windows]
    assert list(found["loss"].values()) == pytest.approx(expected, rel=1e-4)
    assert found["val_auc"] == pytest.approx({220: 1.6})
