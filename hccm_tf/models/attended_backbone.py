"""Attention after the blocks of a `keras.applications` backbone."""

import re

import keras


def attended_backbone(backbone, blocks, attend):
    r"""A copy of a backbone with an attention after chosen layers.

    The copy has the backbone's layers by their names, with equal weights; the backbone
    stays as it is.

    Args:
        backbone: functional `keras.Model` with one input and one output.
        blocks: names of the layers whose outputs are attended, see `last_layers`.
        attend: function `(name, feature_map, category)` to the attended feature map,
            of the same shape, all symbolic; called once for each of `blocks`.

    Returns:
        `keras.Model` from `[images, category]`, the backbone's input and int32 `[B]`,
        to the backbone's output.

    Raises:
        ValueError: if the backbone has no layer of one of the names.

    Example:
    ```python
    backbone = keras.applications.MobileNetV3Small((64, 64, 3), include_top=False)
    blocks = last_layers(backbone, r"(expanded_conv(?:_\d+)?)_")
    squeeze_and_excite = attended_backbone(
        backbone, blocks, lambda name, x, category: ChannelAttention(pooling="avg")(x)
    )
    ```
    """
    unknown = set(blocks) - {layer.name for layer in backbone.layers}
    if unknown:
        raise ValueError(
            f"backbone {backbone.name} has no layer of these names. Received: "
            f"{sorted(unknown)}"
        )
    image = keras.Input(backbone.input_shape[1:], dtype=backbone.input.dtype)
    category = keras.Input((), dtype="int32")

    def call(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        if layer.name not in blocks:
            return outputs
        return attend(layer.name, outputs, category)

    # Cloning takes no input that the model lacks: it gets one, unconnected.
    unused = keras.Input((), dtype="int32")
    copy = keras.models.clone_model(
        keras.Model([backbone.input, unused], backbone.output, name=backbone.name),
        input_tensors=[image, category],
        call_function=call,
    )
    copy_weights(backbone, copy)
    return copy


def last_layers(backbone, pattern):
    """Names of the last layer of each block.

    Args:
        backbone: functional `keras.Model`.
        pattern: regular expression that matches the beginning of the names of a
            block's layers; its first group is the block.
    """
    last = {}
    # In this order, a layer stands behind those whose outputs it takes.
    for layer in backbone.layers:
        if match := re.match(pattern, layer.name):
            last[match[1]] = layer.name
    return list(last.values())


def copy_weights(backbone, copy):
    """Gives the layers of another model the weights that a backbone's have, by name."""
    for layer in backbone.layers:
        if layer.weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
