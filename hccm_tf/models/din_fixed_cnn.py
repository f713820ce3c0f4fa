"""`din_fixed_cnn`: the two-stage form, pooled maps → Dense (HCCM, 3.1.3)."""

import functools

import keras

from hccm_tf.models import image_encoder
from hccm_tf.models.image_encoder import build_ranker

__all__ = ["build_image_encoder", "build_ranker"]


def build_image_encoder(schema, options, layers, explain=False):
    """No convolution is trained and no category is used; there is no explanation."""
    del schema, explain
    make = functools.partial(keras.layers.Dense, options.image_embedding_dim)
    dense = layers.get("projection", make)
    return image_encoder.build_image_encoder(
        lambda maps, category, mask: dense(keras.layers.GlobalAveragePooling2D()(maps)),
        options,
    )
