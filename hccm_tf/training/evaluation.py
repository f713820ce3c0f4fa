"""Predictions of a model over a data set."""

import numpy as np
import pandas as pd
import tensorflow as tf

# Name -> dtype.
PREDICTION_COLUMNS = {
    "position": "int64",
    "row": "int64",
    "user_key": "int64",
    "label": "float32",
    "weight": "float32",
    "ctr": "float32",
}


def predict_part(infer, dataset, part, requests, check=lambda: None):
    """Predicts a part of a split.

    Args:
        infer: `tf.function` from inputs to click probabilities `[R, N, 1]`.
        dataset: of `hccm_tf.data.dataset.Batches.dataset`, in order.
        part: `(index, count)` with which it was made.
        requests: R, the number of requests in a batch.
        check: function that is called before each batch; what it raises is raised.

    Returns:
        dict of arrays, an entry for each impression: `position`, which grows in the
        order of the split, `row` of the log, `user_key`, `label`, `weight` and `ctr`.
    """
    index, count = part
    # Traced once, and not first for the shapes of one batch.
    infer.get_concrete_function(dataset.element_spec[0])
    # Also of a part without a batch.
    columns = [tuple(np.zeros(0, dtype) for dtype in PREDICTION_COLUMNS.values())]
    for number, batch in enumerate(dataset):
        check()
        first = (index + number * count) * requests
        values = impressions(batch, infer(batch[0]), first)
        columns.append([value.numpy() for value in values])
    arrays = [np.concatenate(column) for column in zip(*columns, strict=True)]
    return dict(zip(PREDICTION_COLUMNS, arrays, strict=True))


def impressions(batch, ctr, first):
    """Tensors of `PREDICTION_COLUMNS` of a batch, an entry for each impression.

    Args:
        batch: element of `hccm_tf.data.dataset.Batches.dataset`.
        ctr: its click probabilities, `[R, N, 1]`.
        first: number of requests before it.
    """
    inputs, label, weight, keys = batch
    mask = inputs["candidate_mask"]
    requests, candidates = tf.unstack(tf.shape(mask, tf.int64))
    place = tf.reshape(tf.range(requests * candidates), tf.shape(mask))
    values = (
        place + tf.cast(first, tf.int64) * candidates,
        keys["row"],
        tf.broadcast_to(keys["user_key"][:, None], tf.shape(mask)),
        label[..., 0],
        weight,
        ctr[..., 0],
    )
    return [tf.boolean_mask(value, mask) for value in values]


def predict(infer, batches, split):
    """Predicts a whole split on one device; see `predict_part` and `to_frame`."""
    dataset, requests = batches.dataset(split), batches.requests_per_batch(split)
    return to_frame(predict_part(infer, dataset, (0, 1), requests))


def infer_function(model):
    """Function of a model's inputs, for batches of all shapes."""
    # AutoGraph has nothing to convert.
    return tf.function(
        lambda inputs: model(inputs, training=False),
        reduce_retracing=True,
        autograph=False,
    )


def to_frame(columns):
    """The predictions of all parts in the order of the split.

    Args:
        columns: dict of `predict_part`, over all parts.

    Returns:
        data frame `row, user_key, label, weight, ctr`.
    """
    frame = pd.DataFrame(columns).sort_values("position", ignore_index=True)
    return frame.drop(columns="position")
