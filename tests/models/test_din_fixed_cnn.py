import keras
import numpy as np
import pytest

from hccm_tf.models import build_model
from tests.models.batches import (
    LOSS,
    SCHEMA,
    SHAPE,
    build,
    define,
    encode,
    inputs_of,
    outcomes,
)


def _pca_options(components=6):
    rng = np.random.default_rng(3)
    return {
        "projection": "pca",
        "pca": (
            rng.normal(size=6).astype(np.float32),
            rng.normal(size=(components, 6)).astype(np.float32),
        ),
        "image_embedding_dim": components,
    }


def test_the_pca_projection_is_frozen(tmp_path):
    options = _pca_options(4)
    model = build("din_fixed_cnn", **options)
    inputs = inputs_of("din_fixed_cnn")
    pooled = inputs["image_map"].astype(np.float64).mean(axis=(1, 2))
    mean, components = options["pca"]
    expected = (pooled - mean) @ components.T
    model.compile("sgd", LOSS, jit_compile=False)
    model.train_on_batch(inputs, *outcomes())
    model.save(tmp_path / "model.keras")
    for trained in (model, keras.models.load_model(tmp_path / "model.keras")):
        encoder = trained.get_layer("image_encoder")
        assert not encoder.trainable_weights
        images = {name: inputs[name] for name in ("image_map", "image_category")}
        found = encoder(images, training=False)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"projection": "pca"}, {**_pca_options(), "image_embedding_dim": 5}]
)
def test_pca_needs_its_components(options):
    message = r"pca, a mean and components of shape \(\d+, 6\)"
    with pytest.raises(ValueError, match=message):
        build_model("din_fixed_cnn", SCHEMA, feature_map_shape=SHAPE, **options)


def test_other_forms_of_a_trained_model_need_no_components():
    options = _pca_options(4)
    model = build("din_fixed_cnn", **options)
    del options["pca"]
    form = define("din_fixed_cnn", **options).forms(model)["encode_images"]
    inputs = inputs_of("din_fixed_cnn")
    images = {name: inputs[name] for name in ("image_map", "image_category")}
    expected = model.get_layer("image_encoder")(images, training=False)
    np.testing.assert_array_equal(form(images, training=False), expected)


def test_pooled_before_they_are_standardised():
    rng = np.random.default_rng(1)
    mean, std = (x.astype(np.float32) for x in rng.uniform(0.5, 2, (2, 6)))
    model = build("din_fixed_cnn", channel_mean=mean, channel_std=std)
    inputs = inputs_of("din_fixed_cnn")
    maps = (inputs["image_map"].astype(np.float64) - mean) / std
    encoder = model.get_layer("image_encoder")
    kernel, bias = (np.asarray(w) for w in encoder.get_layer("projection").weights)
    expected = maps.mean(axis=(1, 2)) @ kernel + bias
    found = encode(model, inputs["image_map"], inputs["image_category"])
    np.testing.assert_allclose(found, expected, atol=1e-4)
