"""The fixed CNN: a `keras.applications` backbone cut after a layer."""

import hashlib

import numpy as np
from etils import epy

from hccm_tf.errors import InputError, first_line

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from hccm_tf.models import backbones

# The last one, by hash of the weights and what else determines the maps.
_encoders = {}


def estimate_normalization(model, images):
    """Sets every BatchNormalization's statistics to those of `images`.

    With untouched statistics a randomly initialised MobileNetV3 is a zero function:
    the standard deviation of its last map is below 1e-9.

    Args:
        model: the backbone.
        images: float32 `[N, h, w, 3]`, a sample of the catalogue.
    """
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momentum = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(np.asarray(images, np.float32), training=True)
    for layer, value in zip(norms, momentum, strict=True):
        layer.momentum = value


def keep_encoder(model, backbone, image_size, layer):
    """Makes `load_encoder` return this fixed CNN in this process.

    Args:
        model: of `load_backbone`, which says what the other arguments are.
        backbone: a key of `BACKBONES`.
        image_size: height and width of the input in pixels.
        layer: name of the last layer.

    Returns:
        SHA-256 of the weights.
    """
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    weights_sha256 = digest.hexdigest()
    _encoders.clear()
    _encoders[weights_sha256, backbone, image_size, layer] = tf.function(
        lambda pixels: model(tf.cast(pixels, tf.float32), training=False),
        input_signature=[tf.TensorSpec([None, image_size, image_size, 3], tf.uint8)],
    )
    return weights_sha256


def load_encoder(weights, weights_sha256, backbone, image_size, layer):
    """The fixed CNN of a store, built once a process.

    Args:
        weights: file of the weights of the model that is cut after `layer`.
        weights_sha256: of `keep_encoder`.
        backbone: a key of `BACKBONES`.
        image_size: height and width of the input in pixels.
        layer: name of the last layer.

    Returns:
        Function from uint8 `[B, image_size, image_size, 3]` to float32 `[B, h, w, c]`.

    Raises:
        InputError: if the file does not hold these weights.
    """
    key = (weights_sha256, backbone, image_size, layer)
    if key not in _encoders:
        model = backbones.load_backbone(backbone, "random", image_size, layer)
        try:
            with backbones.quiet_loading():
                model.load_weights(weights)
            found = keep_encoder(model, backbone, image_size, layer)
        except (OSError, ValueError, KeyError) as error:
            found = first_line(error)
        if found != weights_sha256:
            raise InputError(
                f"{weights}: not the weights of the store ({found}); extract the "
                "feature maps again"
            )
    return _encoders[key]
