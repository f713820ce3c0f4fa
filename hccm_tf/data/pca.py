"""Principal components of a store's images."""

import numpy as np
import tensorflow as tf
from sklearn.decomposition import IncrementalPCA
from sklearn.utils import gen_batches

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
    pca = IncrementalPCA(count)
    size = max(batch_size, count)
    for batch in gen_batches(len(rows), size, min_batch_size=count):
        maps = feature_maps.gather(tf.constant(rows[batch])).numpy()
        pooled = maps.mean(axis=(1, 2), dtype=np.float32)
        pca.partial_fit((pooled - feature_maps.channel_mean) / feature_maps.channel_std)
    return pca.mean_.astype(np.float32), pca.components_.astype(np.float32)
