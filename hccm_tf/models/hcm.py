"""`hcm`: the hybrid CNN without category prior (HCCM, 3.1.3)."""

import functools

from hccm_tf.layers import HybridCNN
from hccm_tf.models import image_encoder
from hccm_tf.models.image_encoder import build_ranker

__all__ = ["build_image_encoder", "build_ranker"]


def build_image_encoder(schema, options, layers, explain=False):
    """As an option the channels are weighed, by the image alone."""
    del schema
    make = functools.partial(
        HybridCNN,
        options.image_embedding_dim,
        filters=options.cnn_filters,
        channel_attention=options.channel_attention,
    )
    cnn = layers.get("hybrid_cnn", make)

    def encode(maps, category, mask):
        del category
        images = cnn(maps, feature_map_mask=mask)
        if not explain:
            return images
        return image_encoder.with_channel_attention(images, cnn, maps)

    return image_encoder.build_image_encoder(encode, options)
