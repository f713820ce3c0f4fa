"""`din_fixed_cnn`: the two-stage form, pooled maps → projection (HCCM, 3.1.3)."""

import functools

import keras

from hccm_tf.models import image_encoder
from hccm_tf.models.image_encoder import build_ranker

__all__ = ["build_image_encoder", "build_ranker"]


def build_image_encoder(schema, options, layers, explain=False):
    """No convolution is trained and no category is used; there is no explanation.

    With `projection="pca"` nothing is: the strict two-stage form.
    """
    del schema, explain
    if options.projection == "pca":
        make = functools.partial(_pca, options)
    else:
        make = functools.partial(keras.layers.Dense, options.image_embedding_dim)
    dense = layers.get("projection", make)
    return image_encoder.build_image_encoder(
        lambda maps, category, mask: dense(keras.layers.GlobalAveragePooling2D()(maps)),
        options,
    )


def _pca(options, name):
    """A frozen layer of `(x - pca_mean) pca_components^T`."""
    mean, components = options.pca_mean, options.pca_components
    shape = options.image_embedding_dim, options.feature_map_shape[-1]
    if mean is None or components is None or components.shape != shape:
        raise ValueError(
            f"projection pca needs pca_mean and pca_components of shape {shape}. "
            f"Received: {getattr(components, 'shape', None)}"
        )
    dense = keras.layers.Dense(len(components), trainable=False, name=name)
    dense.build((None, shape[-1]))
    dense.set_weights([components.T, -components @ mean])
    return dense
