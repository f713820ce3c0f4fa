"""Pooled, standardised feature maps: what is known of an image without a CNN."""

import dataclasses

import numpy as np
import tensorflow as tf

from hccm_tf.data.feature_maps import FeatureMapStore


def pool(store, rows):
    """The mean of standardised maps over their positions.

    Args:
        store: `FeatureMapStore`.
        rows: int64 `[N]`, as `store.find` counts them.

    Returns:
        float32 `[N, c]`.
    """
    maps = store.gather(tf.constant(rows)).numpy()
    pooled = maps.mean(axis=(1, 2), dtype=np.float32)
    return (pooled - store.channel_mean) / store.channel_std


@dataclasses.dataclass(frozen=True)
class PooledMaps:
    """A store's images for `hccm_tf.data.dataset.Batches`, whose maps are vectors.

    Args:
        store: `FeatureMapStore`, which finds them.
        vectors: float32 `[rows + 1, c]`, of each row as `store.find` counts them; 0 for
            no image.
    """

    store: FeatureMapStore
    vectors: np.ndarray

    @classmethod
    def of(cls, store, batch_size=1024):
        """Reads all images of a store, a batch at a time."""
        rows = np.sort(store.rows) + 1
        vectors = np.zeros((rows.max(initial=0) + 1, store.shape[-1]), np.float32)
        for begin in range(0, len(rows), batch_size):
            batch = rows[begin : begin + batch_size]
            vectors[batch] = pool(store, batch)
        return cls(store, vectors)

    def find(self, image_keys):
        """As `ImageStore.find`."""
        return self.store.find(image_keys)

    def gather(self, rows):
        """Vectors `[U, c]` of rows, in graph operations."""
        return tf.gather(self.vectors, rows)
