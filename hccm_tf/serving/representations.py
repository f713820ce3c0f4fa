"""The representation table: (image, category) → vector (HCCM, 2.3)."""

import math

import numpy as np
import tensorflow as tf

from hccm_tf.data import ids
from hccm_tf.errors import InputError
from hccm_tf.progress import advance, progress

BATCH_SIZE = 512
BATCH_VALUES = 1 << 22  # of the maps of a batch, which pixels have many of
REPRESENTATION_DTYPES = ("float32", "float16", "int8")
# Names of a table's variables, by which they are found in an export.
KEYS = "representation_keys"
VECTORS = "representation_vectors"
SCALES = "representation_scales"
CHECKS = "representation_checks"


class RepresentationTable(tf.Module):
    """Looks representations up by image and category, in graph operations.

    The number of rows does not stand in a graph that uses the table, so that a version
    with other rows can be written without the model (`tfrecords_tools.refresh_export`).

    Args:
        keys: int64 `[P]`, sorted keys of (image, category) pairs, P at least 1.
        vectors: `[P + 1, D]`, float32, float16 or int8; row 0 is zero, row i + 1 is
            that of key i.
        scales: float32 `[P + 1]` for int8: row i is `scales[i] * vectors[i]`.
        by_category: whether the vectors depend on the category; the keys are those of
            category 1 otherwise.
        checks: int64 `[P]`, of the images' names, see `hccm_tf.data.ids`; `None` to
            know images by their keys alone.
    """

    def __init__(self, keys, vectors, scales=None, by_category=True, checks=None):
        super().__init__(name="representation_table")
        self.by_category = by_category
        self.representation_keys = table_variable(keys, KEYS)
        self.representation_vectors = table_variable(vectors, VECTORS)
        self.representation_scales = None
        if scales is not None:
            self.representation_scales = table_variable(scales, SCALES)
        self.representation_checks = None
        if checks is not None:
            self.representation_checks = table_variable(checks, CHECKS)

    def find(self, image_keys, categories, checks=None):
        """Row numbers; 0, no image, for a pair that the table does not hold.

        Args:
            image_keys: int64 tensor.
            categories: int32 tensor of the same shape.
            checks: int64 tensor likewise, of the images' names; negative where the name
                is not known.
        """
        if not self.by_category:
            categories = tf.ones_like(image_keys, tf.int32)
        pairs = ids.pair_keys(image_keys, categories)
        rows = tf.cast(ids.find(self.representation_keys, pairs) + 1, tf.int32)
        is_none = image_keys == ids.NO_IMAGE
        if checks is not None and self.representation_checks is not None:
            expected = tf.gather(self.representation_checks, tf.maximum(rows - 1, 0))
            # `!=` would lose the shape where one width is known and the other is not.
            is_none |= (checks >= 0) & tf.not_equal(checks, expected)
        return tf.where(is_none, 0, rows)

    def look_up(self, rows):
        """float32 representations `[..., D]` of row numbers `[...]`."""
        vectors = tf.cast(tf.gather(self.representation_vectors, rows), tf.float32)
        if self.representation_scales is None:
            return vectors
        return vectors * tf.gather(self.representation_scales, rows)[..., None]


def table_variable(values, name):
    """A variable of an export's table, which a refresh may give other rows."""
    shape = tf.TensorShape([None, *values.shape[1:]])
    return tf.Variable(values, trainable=False, name=name, shape=shape)


def quantize_rows(vectors, dtype):
    """Rows in the form in which a table keeps them.

    Args:
        vectors: float32 `[N, D]`.
        dtype: one of `REPRESENTATION_DTYPES`. int8 rounds to 127 steps on either side
            of 0, as wide as the row's largest value needs.

    Returns:
        `(vectors, scales)` of `RepresentationTable`.

    Raises:
        InputError: if a value is not finite, or too large for `dtype`.
    """
    largest = np.abs(vectors).max(initial=0)
    if not largest <= (np.finfo(dtype).max if dtype != "int8" else np.inf):
        raise InputError(
            f"a representation has values that are too large for {dtype} or none. "
            f"Received: {largest}"
        )
    if dtype != "int8":
        return vectors.astype(dtype), None
    scales = np.abs(vectors).max(axis=1, initial=0) / 127
    steps = vectors / np.where(scales > 0, scales, 1)[:, None]
    return np.rint(steps).astype(np.int8), scales.astype(np.float32)


def encode(encoder, feature_maps, rows, categories, dtype):
    """Encodes images into the rows of a table.

    Args:
        encoder: function from `image_map` and `image_category` to vectors.
        feature_maps: `ImageStore`.
        rows: int64 `[N]`, rows of the store, N at least 1.
        categories: `[N]`, what `encoder` takes.
        dtype: one of `REPRESENTATION_DTYPES`.

    Returns:
        `(vectors, scales)` of `RepresentationTable`, of N + 1 rows, the first zero.

    Raises:
        InputError: if the store is damaged where the rows are.
    """
    feature_maps.check_once(rows)
    size = min(BATCH_SIZE, max(BATCH_VALUES // math.prod(feature_maps.shape), 1))
    vectors = scales = None
    with progress("encoding", len(rows), "photo"):
        for start in range(0, len(rows), size):
            batch = slice(start, start + size)
            maps = feature_maps.gather(tf.constant(rows[batch]))
            encoded = encoder(maps, tf.constant(categories[batch])).numpy()
            values, steps = quantize_rows(encoded, dtype)
            if vectors is None:
                vectors = np.zeros((len(rows) + 1, values.shape[1]), values.dtype)
                scales = None if steps is None else np.zeros(len(rows) + 1, steps.dtype)
            vectors[1:][batch] = values
            if steps is not None:
                scales[1:][batch] = steps
            advance(len(values))
    return vectors, scales


def encode_catalogue(
    encoder, feature_maps, image_keys, categories=None, dtype="float32", checks=None
):
    """Encodes every (image, category) of a catalogue that has a feature map.

    Args:
        encoder: the model's `image_encoder`.
        feature_maps: `ImageStore`.
        image_keys: int64 `[N]`, one for each item.
        categories: int32 `[N]`, category indices; `None` if the encoder does not look
            at them, and each image is in the table once.
        dtype: one of `REPRESENTATION_DTYPES`.
        checks: int64 `[N]`, see `RepresentationTable`.

    Returns:
        `RepresentationTable`. Of pairs of one key the most frequent is there.

    Raises:
        InputError: if no image has a map.
    """
    by_category = categories is not None
    if not by_category:
        categories = np.ones(len(image_keys), np.int32)
    rows = feature_maps.find(image_keys).numpy()
    with_map = np.flatnonzero(rows > 0)
    if not with_map.size:
        raise InputError(
            f"none of the {len(image_keys)} images of the catalogue is in the feature "
            "maps; extract those of this catalogue"
        )
    pairs = np.stack([rows[with_map], categories[with_map]], axis=1)
    _, places, counts = np.unique(pairs, axis=0, return_index=True, return_counts=True)
    chosen = with_map[places]
    keys = ids.pair_keys(image_keys[chosen], categories[chosen]).numpy()
    order = np.lexsort((-counts, keys))
    keys, first = np.unique(keys[order], return_index=True)
    chosen = chosen[order[first]]

    @tf.function(reduce_retracing=True, autograph=False)
    def vectors_of(maps, category):
        inputs = {"image_map": maps, "image_category": category}
        return encoder(inputs, training=False)

    told = categories[chosen].astype(np.int32)
    vectors, scales = encode(vectors_of, feature_maps, rows[chosen], told, dtype)
    checks = None if checks is None else checks[chosen]
    return RepresentationTable(keys, vectors, scales, by_category, checks)
