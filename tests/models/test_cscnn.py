"""`cscnn`, and the models that see the images of one side only."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.models import build_form, build_model, uses_category
from hccm_tf.models.options import CNN_ATTENTIONS, ModelOptions
from hccm_tf.training.pretraining import load_cnn_weights, pretrain
from tests.conftest import TINY
from tests.models.test_models import BATCH, SCHEMA
from tests.models.test_models import SHAPE as MAP_SHAPE
from tests.models.test_models import _inputs as map_inputs

SHAPE = (32, 32, 3)
OPTIONS = {
    **TINY,
    "id_dropout": 0.0,
    "products": True,
    "similarity": "cosine",
    "cnn_layer": "expanded_conv_2_add",
}
IMAGES = 9


def _build(attention="category", seed=0, **options):
    options = {**OPTIONS, "cnn_attention": attention, **options}
    keras.utils.set_random_seed(seed)
    model = build_model("cscnn", SCHEMA, feature_map_shape=SHAPE, **options)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.1, weight.shape))
    for weight in model.non_trainable_variables:
        if weight.path.endswith("moving_variance"):
            weight.assign(rng.uniform(0.01, 0.1, weight.shape))
    return model


def _inputs():
    """A batch: features of `test_models`, and pixels of `IMAGES` images."""
    inputs = map_inputs("din")
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (IMAGES + 3, *SHAPE)).astype(np.uint8)
    kinds = rng.integers(1, 6, IMAGES + 3).astype(np.int32)
    # Row 0 is no image; the last two pad.
    for row in (0, -1, -2):
        pixels[row], kinds[row] = 0, 0
    item = rng.integers(1, IMAGES + 1, BATCH).astype(np.int32)
    item[3] = 0
    return {
        **inputs,
        "image_map": pixels,
        "image_category": kinds,
        "candidate_image": item,
    }


def _encode(model, pixels, category, training=False):
    encoder = model.get_layer("image_encoder")
    inputs = {"image_map": pixels, "image_category": category}
    return encoder(inputs, training=training).numpy()


@pytest.mark.parametrize("attention", CNN_ATTENTIONS)
def test_probabilities_and_gradients(attention):
    model = _build(attention)
    inputs = _inputs()
    assert set(model.input) == set(inputs)
    with tf.GradientTape() as tape:
        p = model(inputs, training=True)
        loss = tf.reduce_mean(
            keras.losses.binary_crossentropy(np.arange(BATCH)[:, None] % 2, p)
        )
    assert p.shape == (BATCH, 1) and np.std(p) > 1e-4
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
        cnn = _build(attention).get_layer("image_encoder").get_layer("cnn")
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
    pixels = _inputs()["image_map"][1:5]
    for attention in CNN_ATTENTIONS:
        model = _build(attention)
        one, other = (
            _encode(model, pixels, np.full(4, kind, np.int32)) for kind in (1, 3)
        )
        assert one.std(axis=0).max() > 1e-3
        difference = np.abs(one - other).max()
        sees = uses_category("cscnn", cnn_attention=attention)
        assert difference > 1e-3 if sees else difference == 0
        assert sees == (attention == "category")


def test_training_hides_categories_from_the_attention():
    pixels = _inputs()["image_map"][1:5]
    model = _build(id_dropout=1e12)
    hidden, one, other = (
        _encode(model, pixels, np.full(4, kind, np.int32), training=True)
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
    options = {**TINY, "feature_map_shape": MAP_SHAPE}
    for name in ("hccm", "late_fusion"):
        build_model(name, categories, **options, image_sides="candidate")
        with pytest.raises(InputError, match="needs history_category"):
            build_model(name, categories, **options)


@pytest.mark.parametrize("training", [False, True])
def test_padding_gives_zeros_and_leaves_no_trace(training):
    pixels, category = (_inputs()[n] for n in ("image_map", "image_category"))
    pixels[-1] = 77  # to show that it is not looked at
    there = category != 0
    one, other = _build(), _build()
    found = _encode(one, pixels, category, training)
    expected = _encode(other, pixels[there], category[there], training)
    assert (found[~there] == 0).all()
    np.testing.assert_allclose(found[there], expected, atol=1e-4)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    nothing = _encode(one, pixels[:2] * 0, category[:2] * 0)
    assert (nothing == 0).all()


def test_pixels_are_scaled_as_the_backbone_needs():
    model = _build("none")
    pixels = _inputs()["image_map"][1:]
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
    np.testing.assert_allclose(_encode(model, pixels, kinds), expected, atol=1e-3)


def test_saving_and_loading(tmp_path):
    model = _build(dropout=0.2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = _inputs()
    np.testing.assert_allclose(
        loaded(inputs, training=False), model(inputs, training=False), atol=1e-6
    )


def test_weights_of_a_file(tmp_path):
    backbone = keras.applications.MobileNetV3Small(
        SHAPE, include_top=False, weights=None
    )
    for weight in backbone.weights:
        weight.assign(weight + 0.5)
    backbone.save_weights(tmp_path / "cnn.weights.h5")
    model = _build()
    cnn = model.get_layer("image_encoder").get_layer("cnn")
    options = {**OPTIONS, "feature_map_shape": SHAPE}
    own = [w for w in cnn.weights if "attention" in w.path or "prior" in w.path]
    before = [np.array(weight) for weight in own]
    load_cnn_weights(model, str(tmp_path / "cnn.weights.h5"), ModelOptions(**options))
    loaded = 0
    for layer in cnn.layers:
        if layer.weights and layer.name in {entry.name for entry in backbone.layers}:
            for a, b in zip(
                layer.weights, backbone.get_layer(layer.name).weights, strict=True
            ):
                np.testing.assert_array_equal(a, b)
                loaded += 1
    assert loaded + len(own) == len(cnn.weights)
    for weight, old in zip(own, before, strict=True):
        np.testing.assert_array_equal(weight, old)


class _Painted:
    """A store of pixels whose colour tells the category."""

    shape = SHAPE

    def __init__(self, pixels):
        self.pixels = tf.constant(pixels)

    def find(self, keys):
        return tf.constant(keys)

    def gather(self, rows):
        return tf.gather(self.pixels, rows)


def test_pretraining_learns_the_categories_and_is_not_told_them():
    count = 120
    rng = np.random.default_rng(0)
    category = rng.integers(2, 5, count).astype(np.int32)
    pixels = rng.integers(0, 60, (count + 1, *SHAPE)).astype(np.uint8)
    for row, kind in enumerate(category, 1):
        pixels[row, :, :, kind - 2] += 180
    keys = np.arange(1, count + 1)
    model = _build()
    priors = [w for w in model.weights if "_prior" in w.path]
    before = [np.array(weight) for weight in priors]
    arguments = (keys, category, 4, 3e-3, 0)
    assert pretrain(model, _Painted(pixels), *arguments) > 0.9
    for weight, old in zip(priors, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    # Without anything to see there is nothing to learn, category attention or not.
    blank = np.full_like(pixels, 128)
    assert pretrain(_build(), _Painted(blank), *arguments) < 0.6


def test_one_side_is_required_where_there_is_one():
    with pytest.raises(ValueError, match="candidate's image only"):
        build_model(
            "cscnn",
            SCHEMA,
            feature_map_shape=SHAPE,
            **{**OPTIONS, "image_sides": "history"},
        )
    with pytest.raises(ValueError, match="image_sides is one of.*left"):
        build_model("hcm", SCHEMA, image_sides="left")
    with pytest.raises(ValueError, match="cnn_attention is one of.*all"):
        build_model("cscnn", SCHEMA, cnn_attention="all")


def _side_model(name, side, seed=0):
    """`(model, options, inputs)`."""
    if name == "cscnn":
        options = {**OPTIONS, "feature_map_shape": SHAPE}
        return _build(seed=seed), options, _inputs()
    options = {**TINY, "id_dropout": 0.0, "products": True, "similarity": "cosine"}
    options.update(image_sides=side, feature_map_shape=MAP_SHAPE)
    keras.utils.set_random_seed(seed)
    model = build_model(name, SCHEMA, **options)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.2, weight.shape))
    inputs = map_inputs(name)
    del inputs["history_image" if side == "candidate" else "candidate_image"]
    return model, options, inputs


@pytest.mark.parametrize(
    ("option", "value"),
    [("image_attention", "multi_query"), ("similarity", "histogram")],
)
def test_what_compares_the_candidates_image_needs_it(option, value):
    options = {**TINY, "feature_map_shape": MAP_SHAPE, option: value}
    build_model("hcm", SCHEMA, **options, image_sides="candidate")
    with pytest.raises(ValueError, match=f"{option} {value}.*image_sides history"):
        build_model("hcm", SCHEMA, **options, image_sides="history")


SIDES = [("hccm", "candidate"), ("hccm", "history"), ("cscnn", "candidate")]


def _ranker_inputs(model, inputs):
    """What the ranker takes of a batch."""
    inputs = dict(inputs)
    maps, category = inputs.pop("image_map"), inputs.pop("image_category")
    vectors = _encode(model, maps, category)
    for side in ("candidate", "history"):
        if f"{side}_image" in inputs:
            inputs[f"{side}_representation"] = vectors[inputs[f"{side}_image"]]
    return inputs


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_a_model_of_one_side_takes_that_side_only(name, side):
    model, _, inputs = _side_model(name, side)
    assert set(model.input) == set(inputs)
    p = model(inputs, training=False).numpy()
    assert p.shape == (BATCH, 1)
    own = "candidate_image" if side == "candidate" else "history_image"
    without = model({**inputs, own: 0 * inputs[own]}, training=False).numpy()
    changed = np.abs(without - p)[:, 0] > 1e-6
    has_images = (inputs[own].reshape(BATCH, -1) != 0).any(axis=1)
    assert not has_images.all()
    np.testing.assert_array_equal(changed, has_images)


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_forms_of_a_model_of_one_side(name, side):
    model, options, inputs = _side_model(name, side)
    inputs = _ranker_inputs(model, inputs)
    ranker = model.get_layer("ranker")
    expected = ranker(inputs, training=False).numpy()[:, 0]
    rank = build_form("rank", model, SCHEMA, **options)
    candidate = {f.name for f in SCHEMA.scalars if f.candidate}
    candidate |= {"candidate_image", "candidate_representation"}
    users = [1, 2, 5]
    requests = {
        key: np.stack([value] * 3) if key in candidate else value[users]
        for key, value in inputs.items()
    }
    found = rank(requests, training=False).numpy()[..., 0]
    for row, user in enumerate(users):
        rows = {
            key: value if key in candidate else np.stack([value[user]] * BATCH)
            for key, value in inputs.items()
        }
        plain = ranker(rows, training=False).numpy()[:, 0]
        np.testing.assert_allclose(found[row], plain, atol=1e-5)
        assert found[row, user] == pytest.approx(expected[user], abs=1e-5)
    explain = build_form("explain", model, SCHEMA, **options)
    weights = explain(inputs, training=False)
    names = ["history_attention"] + ["image_attention"] * (side == "history")
    assert sorted(weights) == names
    if side == "history":
        there = inputs["history_image"] != 0
        attended = weights["image_attention"].numpy()
        assert (attended[~there] == 0).all() and (attended[there] != 0).all()


def test_the_query_of_the_history_is_the_candidates():
    model, _, inputs = _side_model("hccm", "history")
    inputs = _ranker_inputs(model, inputs)
    ranker = model.get_layer("ranker")
    query = ranker.get_layer("image_query")
    assert query.kernel.shape == (
        2 * TINY["embedding_dim"],
        TINY["image_embedding_dim"],
    )
    before = ranker(inputs, training=False).numpy()
    query.kernel.assign(query.kernel * -2)
    changed = np.abs(ranker(inputs, training=False).numpy() - before)[:, 0] > 1e-6
    np.testing.assert_array_equal(changed, inputs["history_image"].any(axis=1))
