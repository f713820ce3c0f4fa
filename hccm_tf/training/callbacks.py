"""Keras callbacks of a training run."""

import keras
import numpy as np
import tensorflow as tf


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


class StepLog(keras.callbacks.Callback):
    """Writes to TensorBoard by step what Keras' own callback writes by epoch.

    `loss` is the mean of the last `STEPS` training steps; the validation metrics stand
    at the step that ends their epoch. In a folder of its own: of two writers in one
    TensorBoard would follow the later.

    Keras' `update_freq` would count from 0 after an interruption, and writes the loss
    as the mean of the whole epoch so far.

    Args:
        folder: where to write.
    """

    STEPS = 50

    def __init__(self, folder):
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(folder))

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._since = epoch, None

    def on_train_batch_end(self, batch, logs=None):
        steps = batch + 1
        is_due = steps % self.STEPS == 0 or steps == self.params["steps"]
        if self._since is not None and not is_due:
            return
        # Keras' is the mean since the epoch's beginning.
        total = steps * float(logs["loss"])
        if self._since is None:
            # Steps before an interruption are in it too, and not known by themselves.
            self._since = (0, 0.0) if steps == 1 else (steps, total)
        before, total_before = self._since
        if is_due and steps > before:
            loss = (total - total_before) / (steps - before)
            self._write({"loss": loss}, self._epoch * self.params["steps"] + steps)
            self._since = steps, total

    def on_epoch_end(self, epoch, logs=None):
        found = {name: value for name, value in logs.items() if name.startswith("val_")}
        self._write(found, (epoch + 1) * self.params["steps"])
        self._writer.flush()

    def on_train_end(self, logs=None):
        self._writer.close()

    def _write(self, values, step):
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)
