"""Principal components of a store's images."""

import numpy as np
import tensorflow as tf
from sklearn.decomposition import IncrementalPCA
from sklearn.utils import gen_batches

from hccm_tf.data.pooled_maps import PooledMaps

BATCH_SIZE = 1024


def fit_pca(feature_maps, num_components, batch_size=BATCH_SIZE):
    """Fits scikit-learn's `IncrementalPCA` to pooled, standardised feature maps.

    All images of the store count once. A batch is in memory at a time; with fewer
    components than channels the result depends slightly on its size.

    Args:
        feature_maps: `FeatureMapStore`.
        num_components: int; there are at most as many as channels and images.
        batch_size: int, images in a batch.

    Returns:
        `(mean, components)`, float32 `[c]` and `[min(num_components, c, images), c]`.
    """
    rows = np.sort(feature_maps.rows) + 1
    count = min(num_components, feature_maps.shape[-1], len(rows))
    pca, pooled = IncrementalPCA(count), PooledMaps(feature_maps)
    size = max(batch_size, count)
    for batch in gen_batches(len(rows), size, min_batch_size=count):
        pca.partial_fit(pooled.gather(tf.constant(rows[batch])).numpy())
    return pca.mean_.astype(np.float32), pca.components_.astype(np.float32)
