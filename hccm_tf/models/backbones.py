"""CNNs of `keras.applications`, cut after a layer."""

import contextlib
import pathlib
import warnings

import keras

from hccm_tf.errors import InputError, first_line

# Backbone -> the layer after which it is cut unless the caller says otherwise.
BACKBONES = {
    "MobileNetV3Small": "expanded_conv_10_add",
    "MobileNetV3Large": "expanded_conv_14_add",
}


@contextlib.contextmanager
def quiet_loading():
    """Keras' error says what a file of weights lacks, as a hundred warnings do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping", UserWarning)
        yield


def load_backbone(name, weights, image_size, layer=None):
    """Builds a backbone.

    Args:
        name: a key of `BACKBONES`.
        weights: `"imagenet"` (downloaded by Keras), `"random"` or the path of a
            weights file of the backbone without its top.
        image_size: height and width of the input in pixels.
        layer: name of the last layer to keep; `None` for the backbone's default.

    Returns:
        `keras.Model` from float images `[B, image_size, image_size, 3]`, RGB in
        0..255, to feature maps `[B, h, w, c]`. After `"random"` its normalisation
        statistics are still untouched: in inference mode it is a zero function.

    Raises:
        InputError: if a name is unknown or the weights cannot be had.
    """
    if name not in BACKBONES:
        raise InputError(f"backbone: one of {sorted(BACKBONES)}. Received: {name}")
    source = None if weights == "random" else weights
    if weights not in ("imagenet", "random") and not pathlib.Path(weights).is_file():
        raise InputError(
            f"weights: imagenet, random or the path of a file. Received: {weights}"
        )
    make = getattr(keras.applications, name)
    shape = (image_size, image_size, 3)
    try:
        with quiet_loading():
            model = make(input_shape=shape, include_top=False, weights=source)
    except Exception as error:
        if weights == "random":
            raise
        raise InputError(
            f"weights={weights} could not be loaded into {name} without its top "
            f"({first_line(error)}); give the path of a file that you have, or random"
        ) from error
    layer = layer or BACKBONES[name]
    names = [candidate.name for candidate in model.layers]
    if layer not in names:
        raise InputError(f"layer: {name} has {names}. Received: {layer}")
    return keras.Model(model.input, model.get_layer(layer).output, name=name)
