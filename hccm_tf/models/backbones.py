"""CNNs of `keras.applications`, cut after a layer."""

import contextlib
import inspect
import pathlib
import re
import warnings

import keras

from hccm_tf.errors import InputError, first_line


@contextlib.contextmanager
def quiet_loading():
    """Keras' error says what a file of weights lacks, as a hundred warnings do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping", UserWarning)
        yield


def backbone_names():
    """Names of the CNNs that the installed Keras has; list of str."""
    found = inspect.getmembers(keras.applications, inspect.isfunction)
    return [name for name, _ in found]


def load_backbone(name, weights, image_size, layer=None):
    """Builds a backbone.

    Args:
        name: one of `backbone_names`.
        weights: `"imagenet"` (downloaded by Keras), `"random"` or the path of a
            weights file of the backbone without its top.
        image_size: height and width of the input in pixels.
        layer: name of the last layer to keep; `None` for that of `default_layer`.

    Returns:
        `keras.Model` from float images `[B, image_size, image_size, 3]`, RGB in
        0..255, to feature maps `[B, h, w, c]`. What the backbone's module of
        `keras.applications` does to images first is in it. After `"random"` the
        statistics of a batch normalisation are still untouched: in inference mode
        MobileNetV3 is a zero function.

    Raises:
        InputError: if a name is unknown, the weights cannot be had, or the CNN cannot
            be built for `image_size`.
    """
    pixels, model = _whole(name, weights, image_size)
    layers = stable_names(model)
    return cut(pixels, layers, layer or _default_layer(model, layers), name)


def default_layer(name, image_size):
    """Where a backbone is cut unless a layer is told.

    That is its last residual addition, after which many networks only widen their
    channels; its output, if it has none or if something goes past it.

    Args:
        name: as of `load_backbone`, which says what is raised.
        image_size: likewise.

    Returns:
        Name of the layer.
    """
    _, model = _whole(name, "random", image_size)
    return _default_layer(model, stable_names(model))


def _default_layer(model, layers):
    additions = [n for n, at in layers.items() if isinstance(at, keras.layers.Add)]
    for name in additions[-1:]:
        # There is no such model if something goes past the layer.
        with contextlib.suppress(ValueError):
            keras.Model(layers[name].output, model.output)
            return name
    return list(layers)[-1]


def cut(pixels, layers, layer, name):
    """The part of a network up to a layer.

    Args:
        pixels: Keras tensor, the network's input.
        layers: name → layer.
        layer: name of the last one to keep.
        name: that of the network.

    Returns:
        `keras.Model`.

    Raises:
        InputError: if there is no such layer, or it is called several times.
    """
    if layer not in layers:
        raise InputError(f"layer: {name} has {list(layers)}. Received: {layer}")
    try:
        return keras.Model(pixels, layers[layer].output, name=name)
    except (AttributeError, ValueError) as error:
        # One that is called twice, for example.
        reason = first_line(error)
        raise InputError(f"layer={layer}: cannot end {name} ({reason})") from error


def stable_names(model):
    """A new model's layers by the names that they have in a new process; dict.

    Keras gives a layer without a name that of its class, and the classes' layers
    numbers, which go on from one model of a process to the next.
    """
    names, first = {}, {}
    for layer in model.layers:
        match = re.fullmatch(r"(.*?)(?:_(\d+))?", layer.name)
        kind, number = match[1], int(match[2] or 0)
        if kind != _snake_case(type(layer).__name__):
            kind, number = layer.name, None
        names[layer] = kind, number
        if number is not None:
            first[kind] = min(number, first.get(kind, number))
    stable = {}
    for layer, (kind, number) in names.items():
        number = number and number - first[kind]
        stable[f"{kind}_{number}" if number else kind] = layer
    return stable


def _snake_case(name):
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _whole(name, weights, image_size):
    """A backbone without its top, with what stands before it: `(pixels, model)`."""
    if name not in backbone_names():
        raise InputError(
            f"backbone: one of {', '.join(backbone_names())}. Received: {name}"
        )
    if weights not in ("imagenet", "random") and not pathlib.Path(weights).is_file():
        raise InputError(
            f"weights: imagenet, random or the path of a file. Received: {weights}"
        )
    source = None if weights == "random" else weights
    make = getattr(keras.applications, name)
    # `keras.applications.resnet`, for one, of `keras.src.applications.resnet`.
    module = getattr(keras.applications, make.__module__.rpartition(".")[2])
    pixels = keras.Input((image_size, image_size, 3))
    try:
        with quiet_loading():
            model = make(
                input_tensor=module.preprocess_input(pixels),
                input_shape=pixels.shape[1:],
                include_top=False,
                weights=source,
            )
    except Exception as error:
        reason = first_line(error)
        if weights == "random":
            raise InputError(
                f"backbone={name}: cannot be built for images of {image_size} x "
                f"{image_size} pixels ({reason})"
            ) from error
        raise InputError(
            f"weights={weights} could not be loaded into {name} without its top "
            f"({reason}); give the path of a file that you have, or random"
        ) from error
    return pixels, model
