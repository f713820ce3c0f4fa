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
