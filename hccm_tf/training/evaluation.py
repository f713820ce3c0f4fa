"""Predictions of a model over a data set."""

import numpy as np
import pandas as pd

# Name -> dtype.
PREDICTION_COLUMNS = {
    "position": "int64",
    "user_key": "int64",
    "label": "float32",
    "ctr": "float32",
}


def predict_part(infer, dataset, part, batch_size):
    """Predicts a part of a split.

    Args:
        infer: function from inputs to click probabilities `[B, 1]`.
        dataset: of `hccm_tf.data.dataset.Batches.dataset`, in order.
        part: `(index, count)` with which it was made.
        batch_size: of `dataset`.

    Returns:
        dict of arrays `[N]`: `position` in the split, `user_key`, `label` and `ctr`.
    """
    index, count = part
    # Also of a part without a batch.
    columns = [tuple(np.zeros(0, dtype) for dtype in PREDICTION_COLUMNS.values())]
    for batch, (inputs, labels, users) in enumerate(dataset):
        first = (index + batch * count) * batch_size
        position = first + np.arange(len(users))
        ctr = np.asarray(infer(inputs))[:, 0]
        columns.append((position, users.numpy(), labels.numpy()[:, 0], ctr))
    arrays = [np.concatenate(column) for column in zip(*columns, strict=True)]
    return dict(zip(PREDICTION_COLUMNS, arrays, strict=True))


def predict(model, dataset, batch_size):
    """Predicts a whole split on one device; see `predict_part` and `to_frame`."""
    return to_frame(predict_part(model.predict_on_batch, dataset, (0, 1), batch_size))


def to_frame(columns):
    """The predictions of all parts in the order of the split.

    Args:
        columns: dict of `predict_part`, over all parts.

    Returns:
        data frame `user_key, label, ctr`.
    """
    frame = pd.DataFrame(columns).sort_values("position", ignore_index=True)
    return frame.drop(columns="position")
