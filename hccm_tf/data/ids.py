"""Ids as sorted 64-bit keys: one mechanism for vocabularies, images and tables.

An id of the log is a signed 64-bit integer or a string. A string is represented by
its 64-bit fingerprint, so that a look-up is a binary search in graph operations,
with nothing to parse when a SavedModel loads. Strings of one fingerprint are easily
made: where ids are in hand they are compared, and elsewhere a check, 63 further bits of
another hash, tells a string from others with its key.
"""

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

NO_IMAGE = 0  # key of the empty image name
# Of the hash behind checks: any, but never another one.
CHECK_KEY = (0x68_63_63_6D, 0x74_66)
CHECK_BUCKETS = 2**63 - 1
# An odd number (2**64 / golden ratio) that spreads small numbers over all bits.
SPREAD = -7046029254386353131


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


def to_checks(ids):
    """Checks of strings, in graph operations; int64 of their shape, none negative."""
    return tf.strings.to_hash_bucket_strong(ids, CHECK_BUCKETS, CHECK_KEY)


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
    spread = tf.cast(categories, tf.int64) * tf.constant(SPREAD, tf.int64)
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


def find_ids(sorted_keys, ids, checks=None):
    """Positions of ids among those of `sorted_keys`, in graph operations.

    Args:
        sorted_keys: int64 tensor `[N]`, ascending.
        ids: int64 or string tensor of any shape.
        checks: int64 tensor `[N]`, those of the keys' strings; without, a string is
            known by its key alone.

    Returns:
        int64 tensor of the shape of `ids`; −1 where an id does not occur.
    """
    place = find(sorted_keys, to_keys(ids))
    if checks is None or checks.shape[0] == 0:
        return place
    expected = tf.gather(checks, tf.maximum(place, 0))
    return tf.where(expected == to_checks(ids), place, tf.constant(-1, tf.int64))


def distinct_keys(ids, counts=None):
    """Sorted keys of distinct ids, and which of the ids has each.

    Of ids with one key the most frequent has it; the others are to be treated as
    unknown.

    Args:
        ids: sequence of distinct int64 or strings.
        counts: int `[N]`, how often each occurs; by default equally often. Of those
            that do, the first by the alphabet counts as the most frequent.

    Returns:
        `(keys, order, collisions)`: int64 arrays with `keys = to_keys(ids)[order]`,
        ascending and distinct; and list of `(id, other)`, the ids that are left out and
        those that have their keys.
    """
    ids = np.asarray(ids)
    if ids.dtype.kind != "i":
        ids = np.asarray([str(value).encode() for value in ids], object)
    # Integers are their own keys, without TensorFlow.
    texts = ids.size and ids.dtype.kind != "i"
    keys = to_keys(tf.constant(ids)).numpy() if texts else ids.astype(np.int64)
    order = np.argsort(keys, kind="stable")
    keys, collisions = keys[order], []
    begin = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    size = np.diff(begin, append=len(keys))
    counts = np.ones(len(ids), np.int64) if counts is None else np.asarray(counts)
    for first, number in zip(begin[size > 1], size[size > 1], strict=True):
        some = sorted(order[first : first + number], key=lambda p: (-counts[p], ids[p]))
        order[first] = some[0]
        collisions += [(ids[p].decode(), ids[some[0]].decode()) for p in some[1:]]
    return keys[begin], order[begin], collisions


def describe_collisions(name, collisions, become):
    """A warning, list of one str, of the `collisions` of `distinct_keys` or of none.

    Args:
        name: what the ids are.
        collisions: list of pairs.
        become: what those that are left out are now.
    """
    return [
        f"warning: {name}: {left_out!r} is {become}, because {kept!r} has the same "
        f"64-bit fingerprint ({len(collisions)} such)"
        for left_out, kept in collisions[:1]
    ]
