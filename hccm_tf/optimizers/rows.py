"""Gradients of embedding tables, which are row-sparse on the TensorFlow backend."""

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None


def is_table(variable):
    """Whether a variable is the table of a `keras.layers.Embedding`."""
    return variable.name == "embeddings" and len(variable.shape) == 2


def is_sparse(gradient):
    """Whether a gradient names the rows that it is for (`tf.IndexedSlices`)."""
    return tf is not None and isinstance(gradient, tf.IndexedSlices)


def sum_duplicates(gradient):
    """The distinct rows of a sparse gradient, and the sum of each row's gradients.

    Args:
        gradient: `tf.IndexedSlices` with values `[N, D]`.

    Returns:
        `(rows, sums)`: integer tensor `[R]` and tensor `[R, D]`.
    """
    rows, place = tf.unique(gradient.indices)
    return rows, tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))


def take_rows(variable, rows):
    """The rows `[R, D]` of a `keras.Variable`, read without reading the others."""
    return tf.gather(variable.value, rows)


def at_rows(values, rows):
    """What an optimizer's `assign` takes to change some rows of a variable."""
    return tf.IndexedSlices(values, rows)


def refuse(optimizer, *options):
    """Raises a `ValueError` for options that do not go with row-sparse updates."""
    for name in options:
        value = getattr(optimizer, name)
        if value:
            raise ValueError(
                f"`{name}` is not supported by {type(optimizer).__name__}. "
                f"Received: {name}={value}"
            )
