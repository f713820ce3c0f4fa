"""Keras callbacks of a training run."""

import time

import keras
import numpy as np

from hccm_tf.training.evaluation import evaluate


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises when the loss is no longer finite.

    Raises:
        FloatingPointError: names the step, counted from 1 over all epochs.
    """

    def on_train_begin(self, logs=None):
        self.step = 0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if not np.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"step {self.step}: the loss is {logs['loss']}; lower "
                "--learning_rate or look for extreme values in the float features"
            )


class ValidationMetrics(keras.callbacks.Callback):
    """Adds exact metrics of a split to each epoch's logs.

    Keras' own AUC is an approximation by thresholds; model selection here uses
    scikit-learn's on all predictions (see `hccm_tf.metrics`).

    Args:
        dataset: of `hccm_tf.data.pipeline.make_dataset`.
        schema: the data's `Schema`.
    """

    def __init__(self, dataset, schema):
        super().__init__()
        self.dataset = dataset
        self.schema = schema

    def on_epoch_end(self, epoch, logs=None):
        self.metrics = evaluate(self.model, self.dataset, self.schema)
        for name in ("auc", "gauc", "log_loss"):
            logs[f"val_{name}"] = self.metrics[name]


class TrainingTime(keras.callbacks.Callback):
    """Sums the time of the training steps; put it first among the callbacks.

    Attributes:
        seconds: over all epochs so far, without what other callbacks do at their end.
    """

    def on_train_begin(self, logs=None):
        self.seconds = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter() - self._begin
