"""`hcm`: the hybrid CNN without category prior (HCCM, 3.1.3)."""

import functools

from hccm_tf.layers import HybridCNN
from hccm_tf.models import image_encoder
from hccm_tf.models.image_encoder import build_ranker

__all__ = ["build_image_encoder", "build_ranker"]


def build_image_encoder(schema, options, layers, explain=False):
    """There is no channel attention to explain."""
    del schema, explain
    make = functools.partial(
        HybridCNN, options.image_embedding_dim, filters=options.cnn_filters
    )
    cnn = layers.get("hybrid_cnn", make)
    return image_encoder.build_image_encoder(
        lambda maps, category, mask: cnn(maps, feature_map_mask=mask), options
    )
