"""What the models with images share, their image encoders."""

import keras
import numpy as np
import pytest

from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.models import build_model
from tests.models.batches import (
    ATTENTIONS,
    BATCH,
    IMAGE_MODELS,
    LOSS,
    ROWS,
    SCHEMA,
    SHAPE,
    WITHOUT_IMAGE,
    build,
    define,
    encode,
    inputs_of,
    outcomes,
    place_of,
    plain_inputs,
    predict,
    read_by,
    slots,
    small,
)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_sharing_images_equals_encoding_every_slot(name, attention):
    options = read_by(name, {**ATTENTIONS[attention], "products": True})
    model = build(name, **options)
    shared, plain = inputs_of(name), plain_inputs()
    assert len(shared["image_map"]) < len(plain["image_map"])
    np.testing.assert_allclose(predict(model, shared), predict(model, plain), atol=1e-5)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_images_count_only_where_the_candidate_has_one(name):
    model = build(name, similarity="cosine", products=True)
    inputs = inputs_of(name)
    before = predict(model, inputs)
    after = predict(model, {**inputs, "image_map": inputs["image_map"][::-1]})
    changed = np.abs(after - before) > 1e-6
    assert inputs["candidate_image"][place_of(WITHOUT_IMAGE)] == 0
    assert not changed[WITHOUT_IMAGE]
    assert changed.sum() >= BATCH / 2
    without = predict(
        model, {**inputs, "candidate_image": 0 * inputs["candidate_image"]}
    )
    one = WITHOUT_IMAGE
    np.testing.assert_allclose(without[one], before[one], atol=1e-6)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_padding_rows_leave_no_trace_in_training(name):
    inputs = inputs_of(name)
    rng = np.random.default_rng(5)
    # Not zeros, to show that they are masked; their category 0 says so.
    extra = rng.normal(size=(7, *SHAPE)).astype(np.float16)
    padded = {
        **inputs,
        "image_map": np.concatenate([inputs["image_map"], extra]),
        "image_category": np.pad(inputs["image_category"], (0, 7)),
    }
    states = []
    for batch in (inputs, padded):
        model = build(name)
        model.compile(keras.optimizers.SGD(0.1), LOSS, jit_compile=False)
        loss = model.train_on_batch(batch, *outcomes())
        states.append([np.float32(loss), *model.get_weights()])
    for one, other in zip(*states, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    start = build(name).get_weights()
    moved = [np.abs(a - b).max() for a, b in zip(start, states[0][1:], strict=True)]
    assert np.mean(np.array(moved) > 0) > 0.5


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_which_models_see_the_category_in_an_image(name):
    encoder = build(name).get_layer("image_encoder")
    maps = slots()[3][1:]
    one, other = (
        encoder(
            {"image_map": maps, "image_category": np.full(len(maps), kind, np.int32)},
            training=False,
        ).numpy()
        for kind in (1, 3)
    )
    difference = np.abs(one - other).max()
    sees = name in ("hccm", "late_fusion")
    assert difference > 1e-3 if sees else difference == 0


@pytest.mark.parametrize("name", ["hcm", "hccm", "late_fusion", "din_fixed_cnn"])
def test_channels_are_standardised(name):
    mean = np.linspace(-1, 1, SHAPE[-1]).astype(np.float32)
    std = np.linspace(0.5, 2, SHAPE[-1]).astype(np.float32)
    maps = slots()[3]
    kinds = np.ones(len(maps), np.int32)
    plain = build(name).get_layer("image_encoder")
    scaled = build(name, channel_mean=mean, channel_std=std)
    scaled = scaled.get_layer("image_encoder")
    scaled.set_weights(plain.get_weights())
    expected = plain({"image_map": maps, "image_category": kinds}, training=False)
    raw = (maps.astype(np.float32) * std + mean).astype(np.float16)
    found = scaled({"image_map": raw, "image_category": kinds}, training=False)
    np.testing.assert_allclose(found, expected, atol=1e-2)
    other = plain({"image_map": raw, "image_category": kinds}, training=False)
    assert np.abs(other - expected).max() > 0.1


@pytest.mark.parametrize(
    ("name", "options", "attends", "has_prior", "channels"),
    [
        ("hcm", {}, False, False, 6),
        ("hcm", {"channel_attention": True}, True, False, 6),
        ("hccm", {}, True, True, 7),
        ("hccm", {"channel_attention": False}, False, True, 7),
        ("hccm", {"prior_channel": False}, True, True, 6),
        ("late_fusion", {}, False, False, 6),
    ],
)
def test_parts_of_the_trainable_cnn(name, options, attends, has_prior, channels):
    model = build(name, **options)
    encoder = model.get_layer("image_encoder")
    cnn = encoder.get_layer("hybrid_cnn")
    assert (cnn.attention is not None) == attends
    assert (cnn.prior is not None) == has_prior
    assert cnn.convs[0].kernel.shape[2] == channels
    form = define(name, **options).forms(model)["encode_images"]
    maps = slots()[3][1:]
    inputs = {"image_map": maps, "image_category": np.arange(1, ROWS) % 4 + 1}
    found = form(inputs, training=False)
    expected = encoder(inputs, training=False)
    assert isinstance(found, dict) == attends
    if attends:
        weights = found["channel_attention"].numpy()
        assert weights.shape == (ROWS - 1, SHAPE[-1]) and weights.std() > 0
        found = found["representation"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_channel_attention_of_new_images():
    model = build("hccm")
    form = define("hccm").forms(model)["encode_images"]
    maps = slots()[3][1:]
    inputs = {"image_map": maps, "image_category": np.arange(1, ROWS) % 4 + 1}
    found = form(inputs, training=False)
    expected = model.get_layer("image_encoder")(inputs, training=False)
    np.testing.assert_allclose(found["representation"], expected, atol=1e-6)
    attention = model.get_layer("image_encoder").get_layer("hybrid_cnn").attention
    flat = maps.astype(np.float32)
    weights = found["channel_attention"].numpy()
    assert weights.shape == (ROWS - 1, SHAPE[-1])
    prior = model.get_layer("image_encoder").get_layer("hybrid_cnn").prior
    outputs = attention(flat, prior=prior(inputs["image_category"])).numpy()
    np.testing.assert_allclose(outputs, flat * weights[:, None, None], atol=1e-5)


def test_hccm_needs_categories():
    schema = Schema((Feature("item_id", "vocabulary", size=3),))
    with pytest.raises(ValueError, match="category"):
        build_model("hccm", schema, feature_map_shape=SHAPE)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_dropped_channels_say_nothing(name):
    """Almost all are dropped, in training only."""
    model, plain, inputs = build(name, map_dropout=0.9999), build(name), inputs_of(name)
    encoder, other = (m.get_layer("image_encoder") for m in (model, plain))
    for weight, value in zip(encoder.weights, other.get_weights(), strict=True):
        weight.assign(value)
    maps, category = inputs["image_map"], inputs["image_category"]
    shown = encode(model, maps, category)
    np.testing.assert_allclose(shown, encode(plain, maps, category), atol=1e-6)
    assert np.abs(shown - encode(model, 0 * maps, category)).max() > 1e-2
    found = encode(model, maps, category, training=True)
    expected = encode(model, 0 * maps, category, training=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["hcm", "late_fusion", "hccm"])
def test_the_shortcut_alone_speaks_at_first(name):
    """A new model has the cosines of the pooled maps."""
    rng = np.random.default_rng(1)
    mean, std = rng.normal(size=6), rng.uniform(0.5, 2, 6)
    model = build_model(
        name,
        SCHEMA,
        feature_map_shape=SHAPE,
        channel_mean=mean.astype(np.float32),
        channel_std=std.astype(np.float32),
        **small(name, shortcut=True, image_embedding_dim=8),
    )
    inputs = inputs_of(name)
    there = inputs["image_category"] != 0
    found = encode(model, inputs["image_map"], inputs["image_category"])
    assert (found[~there] == 0).all()
    pooled = (
        inputs["image_map"][there].astype("float64").mean(axis=(1, 2)) - mean
    ) / std
    np.testing.assert_allclose(
        found[there] @ found[there].T, pooled @ pooled.T, atol=1e-3
    )
