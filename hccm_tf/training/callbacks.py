"""Keras callbacks of a training run."""

import keras
import numpy as np


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises when the loss is no longer finite.

    Raises:
        FloatingPointError: names the step, counted from 1 over all epochs.
    """

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            step = int(self.model.optimizer.iterations)
            raise FloatingPointError(
                f"step {step}: the loss is {logs['loss']}; lower learning_rate or "
                "look for extreme values in the float features"
            )


class StopOnDamage(keras.callbacks.Callback):
    """Raises when a check in the background has found damage.

    Args:
        check: `hccm_tf.data.shard_check.BackgroundCheck`.
    """

    def __init__(self, check):
        super().__init__()
        self._check = check

    def on_train_batch_end(self, batch, logs=None):
        self._check.raise_if_damaged()
