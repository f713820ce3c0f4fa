"""Ids as sorted 64-bit keys: one mechanism for vocabularies, images and tables.

An id of the log is a signed 64-bit integer or a string. A string is represented by
its 64-bit fingerprint, so that a look-up is a binary search in graph operations,
with nothing to parse when a SavedModel loads.
"""

import numpy as np
from etils import epy

from hccm_tf.errors import InputError

with epy.lazy_imports():
    import tensorflow as tf

NO_IMAGE = 0  # key of the empty image name


def to_keys(ids):
    """Signed 64-bit keys of ids, in graph operations.

    Args:
        ids: int64 (returned as it is) or string tensor of any shape.

    Returns:
        int64 tensor of the same shape; FarmHash64 of the bytes for strings.
    """
    ids = tf.convert_to_tensor(ids)
    if ids.dtype != tf.string:
        return tf.cast(ids, tf.int64)
    digests = tf.fingerprint(tf.reshape(ids, [-1]))
    return tf.reshape(tf.bitcast(digests, tf.int64), tf.shape(ids))


def image_keys(images):
    """Keys of image names, `NO_IMAGE` for the empty string.

    Args:
        images: string tensor of any shape.

    Returns:
        int64 tensor of the same shape.
    """
    images = tf.convert_to_tensor(images)
    return tf.where(images == "", tf.constant(NO_IMAGE, tf.int64), to_keys(images))


def pair_keys(image_keys, categories):
    """Keys of (image, category) pairs, in graph operations.

    Args:
        image_keys: int64 tensor.
        categories: int32 tensor of the same shape, category indices.

    Returns:
        int64 tensor; `NO_IMAGE` where there is no image.
    """
    # An odd multiplier (2**64 / golden ratio) spreads small numbers over all bits.
    spread = tf.cast(categories, tf.int64) * tf.constant(-7046029254386353131, tf.int64)
    pairs = tf.bitwise.bitwise_xor(image_keys, spread)
    return tf.where(image_keys == NO_IMAGE, tf.constant(NO_IMAGE, tf.int64), pairs)


def find(sorted_keys, keys):
    """Positions of `keys` in `sorted_keys`, in graph operations.

    Args:
        sorted_keys: int64 tensor `[N]`, ascending.
        keys: int64 tensor of any shape.

    Returns:
        int64 tensor of the shape of `keys`; −1 where a key does not occur.
    """
    sorted_keys = tf.convert_to_tensor(sorted_keys, tf.int64)
    if sorted_keys.shape[0] == 0:
        return tf.fill(tf.shape(keys), tf.constant(-1, tf.int64))
    flat = tf.reshape(keys, [-1])
    place = tf.searchsorted(sorted_keys, flat, out_type=tf.int64)
    place = tf.minimum(place, tf.size(sorted_keys, tf.int64) - 1)
    place = tf.where(tf.gather(sorted_keys, place) == flat, place, -1)
    return tf.reshape(place, tf.shape(keys))


def sorted_unique_keys(ids, name):
    """Sorted keys of distinct ids and the order that sorts them.

    Args:
        ids: sequence of distinct int64 or strings.
        name: what the ids are, for the error.

    Returns:
        `(keys, order)`: int64 arrays with `keys = to_keys(ids)[order]`, ascending.

    Raises:
        InputError: if two ids have one key (a fingerprint collision).
    """
    ids = np.asarray(ids)
    if ids.dtype.kind != "i":
        ids = np.asarray([str(value).encode() for value in ids], object)
    # Integers are their own keys, without TensorFlow.
    texts = ids.size and ids.dtype.kind != "i"
    keys = to_keys(tf.constant(ids)).numpy() if texts else ids.astype(np.int64)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    same = np.flatnonzero(keys[1:] == keys[:-1])
    if same.size:
        pair = [ids[order[same[0]]], ids[order[same[0] + 1]]]
        raise InputError(
            f"{name}: two ids share one 64-bit key: rename one. Received: {pair}"
        )
    return keys, order
