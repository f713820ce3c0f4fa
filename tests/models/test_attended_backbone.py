import keras
import numpy as np
import pytest
from keras import ops

from hccm_tf.layers import CategoryPrior, ChannelAttention
from hccm_tf.models.attended_backbone import (
    attended_backbone,
    copy_weights,
    last_layers,
)
from hccm_tf.preparation.feature_maps.fixed_cnn import estimate_normalization

SIZE = 32
# Backbone -> its last layer to keep, pattern of its blocks, last layers of these.
CASES = {
    "MobileNetV3Small": (
        "expanded_conv_4_add",
        r"(expanded_conv(?:_\d+)?)_",
        [
            "expanded_conv_project_bn",
            "expanded_conv_1_project_bn",
            "expanded_conv_2_add",
            "expanded_conv_3_project_bn",
            "expanded_conv_4_add",
        ],
    ),
    "EfficientNetB0": (
        "block3b_add",
        r"(block\d+[a-z])_",
        [
            "block1a_project_bn",
            "block2a_project_bn",
            "block2b_add",
            "block3a_project_bn",
            "block3b_add",
        ],
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """`(backbone, blocks)`; the weights are random, with statistics of images."""
    last, pattern, expected = CASES[request.param]
    keras.utils.set_random_seed(0)
    backbone = getattr(keras.applications, request.param)(
        input_shape=(SIZE, SIZE, 3), include_top=False, weights=None
    )
    backbone = keras.Model(backbone.input, backbone.get_layer(last).output)
    estimate_normalization(backbone, _images(8))
    blocks = last_layers(backbone, pattern)
    assert blocks == expected
    return backbone, blocks


def _images(count=3):
    rng = np.random.default_rng(1)
    return rng.uniform(0, 255, (count, SIZE, SIZE, 3)).astype(np.float32)


def _attend_by_category(name, x, category):
    prior = CategoryPrior(4, (2, 2), name=f"{name}_prior")(category)
    return ChannelAttention(4, name=f"{name}_attention")(x, prior=prior)


def test_attention_of_ones_gives_the_backbones_outputs(case):
    backbone, blocks = case
    seen = []

    def attend(name, x, category):
        seen.append(name)
        ones = ops.ones_like(category, dtype=x.dtype)
        return x * ones[:, None, None, None]

    model = attended_backbone(backbone, blocks, attend)
    assert sorted(seen) == sorted(blocks)
    images = _images()
    expected = backbone(images, training=False).numpy()
    assert expected.std() > 1e-3
    found = model([images, np.array([0, 1, 2])], training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_every_attention_has_a_say(case):
    backbone, blocks = case
    images = _images()
    expected = backbone(images, training=False).numpy()
    for block in blocks[::2]:
        halved = attended_backbone(backbone, [block], lambda name, x, c: x / 2)
        found = halved([images, np.zeros(3)], training=False).numpy()
        assert np.abs(found - expected).max() > 1e-3 * expected.std()


def test_weights_are_equal_and_not_shared(case):
    backbone, blocks = case
    model = attended_backbone(backbone, blocks, _attend_by_category)
    count = 0
    layers = [layer for layer in backbone.layers if layer.weights]
    for layer in layers:
        copy = model.get_layer(layer.name)
        for weight, other in zip(layer.weights, copy.weights, strict=True):
            np.testing.assert_array_equal(weight, other)
            assert weight is not other
            count += 1
    own = [w for w in model.weights if "_attention" in w.path or "_prior" in w.path]
    assert len(own) == 5 * len(blocks)
    assert count + len(own) == len(model.weights)
    for weight in model.trainable_weights:
        weight.assign(weight + 1)
    copy_weights(backbone, model)
    for layer in layers:
        for weight, other in zip(
            layer.weights, model.get_layer(layer.name).weights, strict=True
        ):
            np.testing.assert_array_equal(weight, other)


def test_the_category_changes_the_output(case):
    backbone, blocks = case
    model = attended_backbone(backbone, blocks, _attend_by_category)
    images = np.repeat(_images(1), 3, axis=0)
    one, same, other = model([images, np.array([1, 1, 2])], training=False).numpy()
    np.testing.assert_allclose(one, same, rtol=1e-4, atol=1e-6)
    assert np.abs(one - other).max() > 1e-3 * one.std()


def test_unknown_layers_are_named():
    pixels = keras.Input((SIZE, SIZE, 3))
    backbone = keras.Model(pixels, keras.layers.Conv2D(2, 3, name="conv")(pixels))
    with pytest.raises(ValueError, match="no layer of these names.*block9"):
        attended_backbone(backbone, ["conv", "block9"], lambda name, x, c: x)


def test_operations_with_arguments_are_copied():
    pixels = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(pixels)
    # Not layers, with arguments that are no tensors.
    x = ops.concatenate([ops.clip(x, 0.0, 6.0), ops.mean(x, 3, keepdims=True)], axis=3)
    backbone = keras.Model(pixels, x)
    model = attended_backbone(backbone, ["conv"], lambda name, x, c: x)
    images = _images()
    np.testing.assert_allclose(
        model([images, np.zeros(3)]), backbone(images), rtol=1e-5, atol=1e-5
    )
