"""Predictions and metrics of a model over a data set."""

import numpy as np
import tensorflow as tf

from hccm_tf.metrics import evaluate_predictions


def predict(model, dataset):
    """Predicts every example of `dataset`, in its order.

    Args:
        model: from inputs to click probabilities `[B, 1]`.
        dataset: of `hccm_tf.data.pipeline.make_dataset`.

    Returns:
        `(predictions, labels, users)`, arrays `[N]`.
    """
    step = tf.function(
        lambda inputs: model(inputs, training=False), reduce_retracing=True
    )
    batches = [
        (step(inputs).numpy()[:, 0], labels.numpy()[:, 0], users.numpy())
        for inputs, labels, users in dataset
    ]
    return tuple(np.concatenate(part) for part in zip(*batches, strict=True))


def evaluate(model, dataset):
    """Metrics of `hccm_tf.metrics.evaluate_predictions` over a data set."""
    predictions, labels, users = predict(model, dataset)
    return evaluate_predictions(labels, predictions, users)
