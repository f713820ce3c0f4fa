"""Pooled, standardised feature maps: what is known of an image without a CNN."""

import dataclasses

import tensorflow as tf

from hccm_tf.data.feature_maps import FeatureMapStore


@dataclasses.dataclass(frozen=True)
class PooledMaps:
    """A store's images for `hccm_tf.data.dataset.Batches`, whose maps are vectors.

    Args:
        store: `FeatureMapStore` of the maps.

    Raises:
        InputError: if a file of the store is not what was written; names it.
    """

    store: FeatureMapStore

    def __post_init__(self):
        self.store.check_once()

    def find(self, image_keys):
        """As `ImageStore.find`."""
        return self.store.find(image_keys)

    def gather(self, rows):
        """Means of standardised maps' positions, float32 `[U, c]`, 0 for no image."""
        maps = tf.cast(self.store.gather(rows), tf.float32)
        pooled = tf.reduce_mean(maps, axis=(1, 2)) - self.store.channel_mean
        pooled /= self.store.channel_std
        return tf.where((rows > 0)[:, None], pooled, 0.0)
