import warnings

import keras
import numpy as np
import pytest

from hccm_tf.errors import InputError
from hccm_tf.models import backbones
from hccm_tf.models.backbones import backbone_names, default_layer, load_backbone

OTHERS = {
    "another": ("MobileNetV3Large", {}),
    "narrower": ("MobileNetV3Small", {"alpha": 0.75}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_weights_of_another_cnn(tmp_path, other):
    name, options = OTHERS[other]
    path = tmp_path / "other.weights.h5"
    make = getattr(keras.applications, name)
    make(
        input_shape=(32, 32, 3), include_top=False, weights=None, **options
    ).save_weights(path)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(InputError) as error:
            load_backbone("MobileNetV3Small", str(path), 32)
    assert not [w for w in warned if w.category is UserWarning]
    message = str(error.value)
    assert message.startswith(f"weights={path} could not be loaded into MobileNetV3Sm")
    assert "objects could not be loaded" in message
    assert "\n" not in message and len(message) < len(str(path)) + 350


def test_all_of_keras_applications_are_there():
    names = backbone_names()
    assert {"EfficientNetV2B0", "ConvNeXtTiny", "ResNet50", "NASNetMobile"} <= set(
        names
    )
    for name in names:
        module = getattr(keras.applications, name).__module__.rpartition(".")[2]
        assert callable(getattr(keras.applications, module).preprocess_input), name
    with pytest.raises(InputError, match="^backbone: one of ConvNeXtBase, .*VGG99"):
        load_backbone("VGG99", "random", 32)
    with pytest.raises(InputError, match="^backbone=InceptionV3: .*32 x 32"):
        load_backbone("InceptionV3", "random", 32)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("MobileNetV3Small", "expanded_conv_10_add"),
        ("MobileNetV3Large", "expanded_conv_14_add"),
        ("EfficientNetV2B0", "block6h_add"),
        # What has no name of its own is called as in a new process.
        ("ConvNeXtTiny", "layer_normalization"),
        ("Xception", "add_11"),
    ],
)
def test_where_a_backbone_is_cut(name, layer):
    keras.layers.Add(), keras.layers.LayerNormalization()
    assert default_layer(name, 96) == layer


def test_something_goes_past_the_last_addition():
    """As in a cell of NASNet, whose branches are put together behind it."""
    inputs = keras.Input((4,))
    added = keras.layers.Add(name="add")([inputs, inputs])
    for outputs, expected in (
        (keras.layers.ReLU(name="end")(added), "add"),
        (keras.layers.Concatenate(name="end")([added, inputs]), "end"),
    ):
        model = keras.Model(inputs, outputs)
        layers = {layer.name: layer for layer in model.layers}
        assert backbones._default_layer(model, layers) == expected


@pytest.mark.parametrize(
    ("name", "layer", "prepare"),
    [
        ("MobileNet", "conv1", lambda x: x / 127.5 - 1),
        ("VGG16", "block1_conv1", lambda x: x[..., ::-1] - [103.939, 116.779, 123.68]),
        ("MobileNetV3Small", "conv", lambda x: x / 127.5 - 1),
    ],
)
def test_pixels_are_as_the_backbone_was_trained_with(name, layer, prepare):
    model = load_backbone(name, "random", 32, layer)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    found = model(pixels.astype("float32"), training=False)
    expected = model.get_layer(layer)(prepare(pixels).astype("float32"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
