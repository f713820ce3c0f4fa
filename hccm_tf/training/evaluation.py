"""Predictions and metrics of a model over a data set."""

import numpy as np
import pandas as pd

from hccm_tf.metrics import evaluate_predictions


def predict(model, dataset, schema):
    """Predicts every example of `dataset`, in its order.

    Args:
        model: from inputs to click probabilities `[B, 1]`.
        dataset: of `hccm_tf.data.pipeline.make_dataset`.
        schema: the data's `Schema`, for its `unsampled`.

    Returns:
        data frame `user_key, label, ctr`.
    """
    batches = [
        (users.numpy(), labels.numpy()[:, 0], model.predict_on_batch(inputs)[:, 0])
        for inputs, labels, users in dataset
    ]
    columns = [np.concatenate(column) for column in zip(*batches, strict=True)]
    frame = pd.DataFrame(dict(zip(("user_key", "label", "ctr"), columns, strict=True)))
    return frame.assign(ctr=schema.unsampled(frame.ctr))


def evaluate(model, dataset, schema):
    """Metrics of `hccm_tf.metrics.evaluate_predictions` over a data set."""
    frame = predict(model, dataset, schema)
    return evaluate_predictions(frame.label, frame.ctr, frame.user_key)
