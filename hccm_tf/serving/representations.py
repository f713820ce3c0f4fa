"""The representation table: (image, category) → vector (HCCM, 2.3)."""

import keras
import numpy as np
import tensorflow as tf

from hccm_tf import ids
from hccm_tf.errors import InputError

BATCH_SIZE = 512


class RepresentationTable(keras.layers.Layer):
    """Looks representations up by image and category, in graph operations.

    Args:
        keys: int64 `[P]`, sorted keys of (image, category) pairs.
        representations: float32 `[P + 1, D]`; row 0 is zero, row i + 1 is that of key
            i.
    """

    def __init__(self, keys, representations):
        super().__init__(name="representation_table", trainable=False)
        self.keys = self.add_weight(
            shape=keys.shape, dtype="int64", initializer="zeros", name="keys"
        )
        self.representations = self.add_weight(
            shape=representations.shape, initializer="zeros", name="representations"
        )
        self.keys.assign(keys)
        self.representations.assign(representations)

    def find(self, image_keys, categories):
        """Row numbers; 0, no image, for a pair that the table does not hold."""
        pairs = ids.pair_keys(image_keys, categories)
        rows = tf.cast(ids.find(self.keys.value, pairs) + 1, tf.int32)
        return tf.where(image_keys == ids.NO_IMAGE, 0, rows)


def encode_catalogue(encoder, feature_maps, image_keys, categories):
    """Encodes every (image, category) of a catalogue that has a feature map.

    Args:
        encoder: the model's `image_encoder`.
        feature_maps: `FeatureMapStore`.
        image_keys: int64 `[N]`, one for each item.
        categories: int32 `[N]`, category indices.

    Returns:
        `RepresentationTable`.

    Raises:
        InputError: if two different pairs have one key.
    """
    rows = feature_maps.find(image_keys).numpy()
    with_map = np.flatnonzero(rows > 0)
    pairs = np.stack([rows[with_map], categories[with_map]], axis=1)
    chosen = with_map[np.unique(pairs, axis=0, return_index=True)[1]]
    keys = ids.pair_keys(image_keys[chosen], categories[chosen]).numpy()
    order = np.argsort(keys)
    chosen, keys = chosen[order], keys[order]
    if (keys[1:] == keys[:-1]).any():
        raise InputError("two (image, category) pairs share one 64-bit key")
    encode = tf.function(
        lambda inputs: encoder(inputs, training=False), reduce_retracing=True
    )
    vectors = np.zeros((len(keys) + 1, encoder.output_shape[-1]), np.float32)
    for start in range(0, len(keys), BATCH_SIZE):
        batch = chosen[start : start + BATCH_SIZE]
        vectors[start + 1 : start + 1 + len(batch)] = encode(
            {
                "image_map": feature_maps.gather(tf.constant(rows[batch])),
                "image_category": tf.constant(categories[batch], tf.int32),
            }
        )
    return RepresentationTable(keys, vectors)
