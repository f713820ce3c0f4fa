"""The fixed CNN: a `keras.applications` backbone or a user's own, cut after a layer."""

import hashlib

import numpy as np
from etils import epy

from hccm_tf.errors import InputError, first_line
from hccm_tf.preparation.feature_maps import own_cnn

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from hccm_tf.models import backbones

WEIGHTS, OWN = "backbone.weights.h5", "backbone.keras"

# The last one, by hash of the weights and what else determines the maps.
_encoders = {}


def cnn_file(folder, backbone):
    """The file of a store that its fixed CNN is made of.

    Args:
        folder: `pathlib.Path` of the store.
        backbone: name of the backbone, or of the user's own file.
    """
    return folder / (OWN if own_cnn.is_own(backbone) else WEIGHTS)


def normalizations(model):
    """The BatchNormalization layers of a backbone, list."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in model.layers if isinstance(layer, kind)]


def estimate_normalization(model, images):
    """Sets every BatchNormalization's statistics to those of `images`.

    With untouched statistics a randomly initialised MobileNetV3 is a zero function:
    the standard deviation of its last map is below 1e-9. (A LayerNormalization has
    none.)

    Args:
        model: the backbone.
        images: float32 `[N, h, w, 3]`, a sample of the catalogue.
    """
    norms = normalizations(model)
    momentum = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(np.asarray(images, np.float32), training=True)
    for layer, value in zip(norms, momentum, strict=True):
        layer.momentum = value


def weights_digest(model):
    """SHA-256 of the weights of a backbone."""
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def keep_encoder(model, digest, backbone, image_size, layer):
    """Makes `load_encoder` return this fixed CNN in this process.

    Args:
        model: of `load_backbone`, which says what the arguments below are, or of
            `load_own_cnn`.
        digest: SHA-256 of the weights, or of the user's own file.
        backbone: name of the backbone, or of the file.
        image_size: height and width of the input in pixels.
        layer: name of the last layer.
    """
    _encoders.clear()
    _encoders[digest, backbone, image_size, layer] = tf.function(
        lambda pixels: model(tf.cast(pixels, tf.float32), training=False),
        input_signature=[tf.TensorSpec([None, image_size, image_size, 3], tf.uint8)],
    )


def load_encoder(folder, weights_sha256, backbone, image_size, layer):
    """The fixed CNN of a store, built once a process.

    Args:
        folder: `pathlib.Path` of the store, with the file of `cnn_file`.
        weights_sha256: the digest of `keep_encoder`, as what follows.
        backbone: name of the backbone, or of the user's own file.
        image_size: height and width of the input in pixels.
        layer: name of the last layer.

    Returns:
        Function from uint8 `[B, image_size, image_size, 3]` to float32 `[B, h, w, c]`.

    Raises:
        InputError: if the file does not hold these weights.
    """
    key = (weights_sha256, backbone, image_size, layer)
    if key not in _encoders:
        file = cnn_file(folder, backbone)
        try:
            model, found = _load(file, *key[1:])
        except (OSError, ValueError, KeyError) as error:
            found = first_line(error)
        if found != weights_sha256:
            raise InputError(
                f"{file}: not the weights of the store ({found}); extract the "
                "feature maps again"
            )
        keep_encoder(model, *key)
    return _encoders[key]


def _load(file, backbone, image_size, layer):
    """The model in a store's file, and its digest."""
    if own_cnn.is_own(backbone):
        return own_cnn.load_own_cnn(file, image_size, layer), own_cnn.digest(file)
    model = backbones.load_backbone(backbone, "random", image_size, layer)
    with backbones.quiet_loading():
        model.load_weights(file)
    return model, weights_digest(model)
