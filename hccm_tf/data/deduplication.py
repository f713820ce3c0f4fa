"""Each image of a batch once: all that a model does with an image is done once."""

import tensorflow as tf


def padded_size(count):
    """`count` rounded up so that at most 8 sizes occur per power of two."""
    octaves = tf.constant([2**k for k in range(4, 40)], tf.int64)
    step = tf.maximum(octaves[tf.searchsorted(octaves, count[None])[0]] // 16, 1)
    return (count + step - 1) // step * step


def deduplicate(candidate_rows, candidate_category, history_rows, history_category):
    """Numbers a batch's images so that each (image, category) occurs once.

    Args:
        candidate_rows: int64 `[R, N]`, store rows of the candidates' images, 0 = no
            image.
        candidate_category: int32 `[R, N]`, category indices.
        history_rows: int64 `[R, T]`.
        history_category: int32 `[R, T]`.

    Returns:
        `(rows, category, candidate_image, history_image)`: int64 `[U]` store rows and
        int32 `[U]` categories, first row 0 (no image) and padded with it; int32
        `[R, N]` and `[R, T]` row numbers into them.
    """
    rows, category = (
        tf.concat([[0], *(tf.reshape(part, [-1]) for part in parts)], axis=0)
        for parts in (
            (candidate_rows, history_rows),
            (candidate_category, history_category),
        )
    )
    # One number for the pair; an image that is missing has no category either.
    base = tf.cast(tf.reduce_max(category), tf.int64) + 1
    pairs = tf.where(rows > 0, rows * base + tf.cast(category, tf.int64), 0)
    unique, index = tf.unique(pairs)
    padding = padded_size(tf.size(unique, tf.int64)) - tf.size(unique, tf.int64)
    unique = tf.pad(unique, [[0, padding]])
    size = tf.size(candidate_rows)
    return (
        unique // base,
        tf.cast(unique % base, tf.int32),
        tf.reshape(index[1 : size + 1], tf.shape(candidate_rows)),
        tf.reshape(index[size + 1 :], tf.shape(history_rows)),
    )
