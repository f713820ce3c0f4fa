"""`cscnn`."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.models import build_model
from hccm_tf.models.cscnn import CSCNN
from tests.models.batches import LOSS, MASK, encode, outcomes, predict, small
from tests.models.batches import SHAPE as MAP_SHAPE
from tests.models.pixels import OPTIONS, SHAPE, build, define, pixel_inputs

(CNN_ATTENTIONS,) = (
    field.metadata["choices"]
    for field in dataclasses.fields(CSCNN.Options)
    if field.name == "cnn_attention"
)


@pytest.mark.parametrize("attention", CNN_ATTENTIONS)
def test_probabilities_and_gradients(attention):
    model = build(attention)
    inputs = pixel_inputs()
    assert set(model.input) == set(inputs)
    with tf.GradientTape() as tape:
        p = model(inputs, training=True)
        labels, counts = outcomes()
        loss = LOSS(labels, p, sample_weight=counts)
    assert p.shape == (*MASK.shape, 1) and np.std(p[MASK]) > 1e-4
    weights = model.trainable_weights
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None, weight.path
        largest = np.abs(tf.convert_to_tensor(gradient).numpy()).max()
        assert np.isfinite(largest)
        if "bias" not in weight.path:
            assert largest > 0, weight.path


def test_what_stands_behind_each_block():
    kinds = ("channel_attention", "spatial_attention", "channel_prior", "spatial_prior")
    for attention, present in zip(
        CNN_ATTENTIONS, (set(), {kinds[0]}, set(kinds[:2]), set(kinds)), strict=True
    ):
        cnn = build(attention).get_layer("image_encoder").get_layer("cnn")
        names = {layer.name for layer in cnn.layers}
        for block in ("expanded_conv_project_bn", "expanded_conv_1_project_bn"):
            found = {kind for kind in kinds if f"{block}_{kind}" in names}
            assert found == present, attention
        if attention == "se":
            squeeze = cnn.get_layer("expanded_conv_project_bn_channel_attention")
            assert squeeze.pooling == ("avg",)
        momentum = {
            layer.momentum
            for layer in cnn.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        }
        assert momentum == {0.9}


def test_only_category_attention_sees_the_category():
    pixels = pixel_inputs()["image_map"][1:5]
    for attention in CNN_ATTENTIONS:
        model = build(attention)
        one, other = (
            encode(model, pixels, np.full(4, kind, np.int32)) for kind in (1, 3)
        )
        assert one.std(axis=0).max() > 1e-3
        difference = np.abs(one - other).max()
        sees = define(cnn_attention=attention).uses_category
        assert difference > 1e-3 if sees else difference == 0
        assert sees == (attention == "category")


def test_training_hides_categories_from_the_attention():
    pixels = pixel_inputs()["image_map"][1:5]
    model = build(id_dropout=1e12)
    hidden, one, other = (
        encode(model, pixels, np.full(4, kind, np.int32), training=True)
        for kind in (1, 2, 3)
    )
    np.testing.assert_allclose(one, hidden, atol=1e-5)
    np.testing.assert_allclose(other, hidden, atol=1e-5)


def test_only_what_is_seen_needs_a_category():
    plain = Schema((Feature("item_id", "hash", size=3, candidate=True),))
    categories = Feature("category", "hash", size=3, candidate=True)
    categories = Schema((*plain.features, categories))
    options = {**OPTIONS, "feature_map_shape": SHAPE}
    build_model("cscnn", plain, **{**options, "cnn_attention": "cbam"})
    build_model("cscnn", categories, **options)
    with pytest.raises(InputError, match="needs category"):
        build_model("cscnn", plain, **options)
    for name in ("hccm", "late_fusion"):
        options = small(name, feature_map_shape=MAP_SHAPE)
        build_model(name, categories, **options, image_sides="candidate")
        with pytest.raises(InputError, match="needs history_category"):
            build_model(name, categories, **options)


@pytest.mark.parametrize("training", [False, True])
def test_padding_gives_zeros_and_leaves_no_trace(training):
    pixels, category = (pixel_inputs()[n] for n in ("image_map", "image_category"))
    pixels[-1] = 77  # to show that it is not looked at
    there = category != 0
    one, other = build(), build()
    found = encode(one, pixels, category, training)
    expected = encode(other, pixels[there], category[there], training)
    assert (found[~there] == 0).all()
    np.testing.assert_allclose(found[there], expected, atol=1e-4)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    nothing = encode(one, pixels[:2] * 0, category[:2] * 0)
    assert (nothing == 0).all()


def test_pixels_are_scaled_as_the_backbone_needs():
    model = build("none")
    pixels = pixel_inputs()["image_map"][1:]
    kinds = np.ones(len(pixels), np.int32)
    backbone = keras.applications.MobileNetV3Small(
        SHAPE, include_top=False, weights=None, include_preprocessing=False
    )
    backbone = keras.Model(
        backbone.input, backbone.get_layer("expanded_conv_2_add").output
    )
    encoder = model.get_layer("image_encoder")
    cnn = encoder.get_layer("cnn")
    for layer in backbone.layers:
        layer.set_weights(
            cnn.get_layer(layer.name).get_weights() if layer.weights else []
        )
    maps = backbone(pixels / np.float32(127.5) - 1, training=False).numpy()
    expected = encoder.get_layer("projection")(maps.mean(axis=(1, 2)))
    np.testing.assert_allclose(encode(model, pixels, kinds), expected, atol=1e-3)


def test_saving_and_loading(tmp_path):
    model = build(dropout=0.2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = pixel_inputs()
    np.testing.assert_allclose(
        predict(loaded, inputs), predict(model, inputs), atol=1e-6
    )
