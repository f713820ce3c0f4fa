"""A user's own fixed CNN, from a `.keras` file."""

import hashlib
import pathlib

from etils import epy

from hccm_tf.errors import InputError, errors_begin_with, first_line

with epy.lazy_imports():
    import keras

    from hccm_tf import keras_file
    from hccm_tf.models import backbones

SUFFIX = ".keras"


def is_own(backbone):
    """Whether what names a backbone is a file of the user's own."""
    return backbone is not None and str(backbone).endswith(SUFFIX)


def digest(file):
    """SHA-256 of a file's content."""
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def describe(file, asked, defaults):
    """What the fixed CNN of a file leaves to the options.

    Args:
        file: path of the `.keras` file.
        asked: dict of the options that were given.
        defaults: dict of all options.

    Returns:
        dict like `defaults`; `weights` and `seed` are `None`.

    Raises:
        InputError: if the file is none, or has another size or weights of its own.
    """
    if not pathlib.Path(file).is_file():
        raise InputError(f"backbone: no such file. Received: {file}")
    for name in ("weights", "seed"):
        if name in asked:
            raise InputError(
                f"{name}={asked[name]}: backbone={file} has weights of its own; leave "
                "it out"
            )
    with errors_begin_with("backbone: "):
        model = _load(file)
    size = asked.get("image_size", model.input_shape[1] or defaults["image_size"])
    layer = asked.get("layer", model.layers[-1].name)
    load_own_cnn(file, size, layer)
    own = {"backbone": pathlib.Path(file).name, "image_size": size, "layer": layer}
    return {**defaults, **asked, **own, "weights": None, "seed": None}


def load_own_cnn(file, image_size, layer):
    """The network of a file, cut after a layer.

    Nothing in the file runs as code: it is read in Keras' safe mode.

    Args:
        file: path of a `.keras` file of a functional or sequential model. Its input are
            images, RGB in 0..255, so that scaling them is part of it.
        image_size: height and width of the input in pixels.
        layer: name of the last layer to keep, of output `[B, h, w, c]` or `[B, c]`.

    Returns:
        `keras.Model` from float images `[B, image_size, image_size, 3]` to feature maps
        `[B, h, w, c]`, with h and w 1 for a layer of vectors.

    Raises:
        InputError: if the file cannot be read, or its model is another one.
    """
    model, name = _load(file), pathlib.Path(file).name
    layers = {layer.name: layer for layer in model.layers}
    # The last layer may be a model, whose own output knows nothing of this one's input.
    is_last = layer == model.layers[-1].name and len(model.outputs) == 1
    part = model if is_last else backbones.cut(model.inputs[0], layers, layer, name)
    pixels = keras.Input((image_size, image_size, 3))
    try:
        maps = part(keras.ops.cast(pixels, part.inputs[0].dtype))
    except Exception as error:
        raise InputError(
            f"image_size={image_size}: {file} takes images of "
            f"{model.input_shape[1:]} ({first_line(error)})"
        ) from error
    shape = getattr(maps, "shape", (None,))
    if None in shape[1:] or len(shape) not in (2, 4):
        raise InputError(
            f"layer={layer}: of {file}, gives neither maps [B, h, w, c] nor vectors "
            f"[B, c]. Received: {shape}"
        )
    if len(shape) == 2:
        maps = keras.layers.Reshape((1, 1, shape[1]))(maps)
    return keras.Model(pixels, keras.ops.cast(maps, "float32"), name="own_cnn")


def _load(file):
    """The whole model of a file, which has one input of images."""
    model = keras_file.load_keras_model(file)
    inputs = getattr(model, "inputs", None) or []
    shape = tuple(inputs[0].shape) if len(inputs) == 1 else None
    if shape is None or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise InputError(
            f"{file}: no functional model whose one input is square images "
            f"[B, h, w, 3]. Received: {shape or f'{len(inputs)} inputs'}"
        )
    return model
