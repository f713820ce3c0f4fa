"""The fixed CNN: a `keras.applications` backbone cut after a layer."""

import hashlib
import pathlib

import keras
import numpy as np
import tensorflow as tf

from hccm_tf.errors import InputError

# Backbone -> the layer after which it is cut unless a flag says otherwise.
BACKBONES = {
    "MobileNetV3Small": "expanded_conv_10_add",
    "MobileNetV3Large": "expanded_conv_14_add",
}
# The last one, by hash of the weights and what else determines the maps.
_encoders = {}


def load_backbone(name, weights, image_size, layer=None):
    """Builds the fixed CNN.

    Args:
        name: a key of `BACKBONES`.
        weights: `"imagenet"` (downloaded by Keras), `"random"` or the path of a
            weights file of the backbone without its top.
        image_size: height and width of the input in pixels.
        layer: name of the last layer to keep; `None` for the backbone's default.

    Returns:
        `keras.Model` from float images `[B, image_size, image_size, 3]`, RGB in
        0..255, to feature maps `[B, h, w, c]`. After `"random"` its normalisation
        statistics are still untouched: see `estimate_normalization`.

    Raises:
        InputError: if a name is unknown or the weights cannot be had.
    """
    if name not in BACKBONES:
        raise InputError(f"--backbone: one of {sorted(BACKBONES)}. Received: {name}")
    source = None if weights == "random" else weights
    if weights not in ("imagenet", "random") and not pathlib.Path(weights).is_file():
        raise InputError(
            f"--weights: imagenet, random or the path of a file. Received: {weights}"
        )
    try:
        model = getattr(keras.applications, name)(
            input_shape=(image_size, image_size, 3), include_top=False, weights=source
        )
    except Exception as error:
        if weights == "random":
            raise
        raise InputError(
            f"--weights={weights} could not be loaded ({error}). Name a file that you "
            "have with --weights=PATH, or take --weights=random"
        ) from error
    layer = layer or BACKBONES[name]
    names = [candidate.name for candidate in model.layers]
    if layer not in names:
        raise InputError(f"--layer: {name} has {names}. Received: {layer}")
    return keras.Model(model.input, model.get_layer(layer).output, name=name)


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
        model = load_backbone(backbone, "random", image_size, layer)
        try:
            model.load_weights(weights)
            found = keep_encoder(model, backbone, image_size, layer)
        except (OSError, ValueError, KeyError) as error:
            found = error
        if found != weights_sha256:
            raise InputError(
                f"{weights}: not the weights of the store ({found}); extract the "
                "feature maps again"
            )
    return _encoders[key]
