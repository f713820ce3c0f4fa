"""What holds for all models, and how they are found."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hccm_tf import models
from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.models import build_model, find_model, name_of
from tests.models.batches import (
    ATTENTIONS,
    BATCH,
    IMAGE_MODELS,
    LOSS,
    MASK,
    MODELS,
    REQUESTS,
    SCHEMA,
    SHAPE,
    build,
    inputs_of,
    outcomes,
    predict,
    read_by,
    small,
)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_probabilities_and_gradients(name, attention):
    if name not in IMAGE_MODELS and attention != "din":
        pytest.skip("the model has no images")
    options = read_by(name, {**ATTENTIONS[attention], "products": True})
    model = build(name, **options)
    inputs = inputs_of(name)
    p = predict(model, inputs)
    assert p.shape == (BATCH,)
    assert ((p > 0) & (p < 1)).all() and p.std() > 1e-4
    labels, counts = outcomes()
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        loss = LOSS(labels, outputs, sample_weight=counts)
    assert outputs.shape == labels.shape
    weights = model.trainable_weights
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None, weight.path
        largest = np.abs(tf.convert_to_tensor(gradient).numpy()).max()
        # A value that is the same for all keys cancels in the softmax of dot_product
        # and in the statistics of a batch normalization.
        assert np.isfinite(largest)
        if "bias" not in weight.path:
            assert largest > 0, weight.path


@pytest.mark.parametrize("name", MODELS)
def test_saving_and_loading(name, tmp_path):
    options = {"similarity": "cosine"} if name in IMAGE_MODELS else {}
    model = build(name, id_dropout=0.1, dropout=0.2, **options)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = inputs_of(name)
    np.testing.assert_allclose(predict(loaded, inputs), predict(model, inputs))


@pytest.mark.parametrize("name", MODELS)
def test_all_models_have_the_same_other_features(name):
    model = build(name)
    images = {"image_map", "image_category", "candidate_image", "history_image"}
    names = {tensor.name for tensor in model.inputs}
    features = {feature.name for feature in SCHEMA.features}
    assert names - images == features | {"candidate_mask"}
    assert bool(names & images) == (name in IMAGE_MODELS)


def test_models_without_histories():
    schema = Schema((Feature("a", "integer", size=3), Feature("b", "float")))
    for name in ("base", "din", "hcm"):
        images = {"feature_map_shape": SHAPE} if name == "hcm" else {}
        model = build_model(name, schema, **images, **small(name))
        inputs = {k: v for k, v in inputs_of(name).items() if k in model.input}
        inputs.update(a=np.arange(REQUESTS) % 5, b=np.ones(REQUESTS, np.float32))
        p = model(inputs, training=False).numpy()[..., 0]
        assert p.shape == MASK.shape
        for request, there in zip(p, MASK, strict=True):
            # Of what is nothing but an image, only these tell candidates apart.
            assert (len(set(request[there])) == 1) or name == "hcm"
        assert len(set(p[:, 0])) > 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deep", {}, "model is one of.*deep"),
        ("hccm", {}, "feature_map_shape"),
        ("hcm", {"image_attention": "cosine"}, "image_attention: one of.*'cosine'"),
        ("hcm", {"similarity": "dot"}, "similarity: one of.*'dot'"),
        ("din_fixed_cnn", {"projection": "svd"}, "projection: one of.*'svd'"),
        ("din", {"attention_activation": "elo"}, "elo"),
        ("hcm", {"cnn_filters": (8,)}, r"cnn_filters: one width for each.*\(8,\)"),
        ("base", {"id_dropout": -1}, "id_dropout: a number from 0 on.*-1"),
        ("base", {"hidden_units": ()}, r"hidden_units: integers from 1 on.*\(\)"),
    ],
)
def test_unknown_names_and_values(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, SCHEMA, **options)


@pytest.mark.parametrize(
    ("name", "option", "reads"),
    [
        ("base", {"products": True}, "embedding_dim, hidden_units"),
        ("din", {"image_attention": "din"}, "attention_activation, products"),
        ("din", {"projection": "pca"}, "attention_activation, products"),
        ("late_fusion", {"channel_attention": True}, "map_dropout, cnn_filters"),
        ("hcm", {"prior_channel": False}, "cnn_filters, shortcut, channel_attention"),
        ("hcm", {"dropuot": 0.1}, "hidden_units, dropout"),
        ("cscnn", {"similarity": "cosine"}, "cnn_layer, cnn_attention"),
    ],
)
def test_options_that_the_model_does_not_read(name, option, reads):
    (unread,) = option
    message = f"^model {name} does not read {unread}. It reads: .*{reads}"
    with pytest.raises(TypeError, match=message):
        build_model(name, SCHEMA, feature_map_shape=SHAPE, **option)


def test_names_find_their_models():
    for name, model in models.MODELS.items():
        assert find_model(name) is model and name_of(model) == name
        assert find_model(f"{model.__module__}:{model.__qualname__}") is model


def test_trees_are_found_and_are_no_network():
    trees = find_model("trees")
    assert trees is models.Trees and name_of(trees) == "trees"
    with pytest.raises(ValueError, match="^model trees is no network: train_main.py"):
        build_model("trees", SCHEMA)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deep", "^model is one of base, .*my_module:MyModel. Received: deep$"),
        (None, "^model is one of .*Received: None$"),
        ("no_such_package.models:Deep", "no_such_package.models:Deep: No module named"),
        ("hccm_tf.models:Deep", "^model hccm_tf.models:Deep: .*no attribute 'Deep'"),
        ("hccm_tf.models:", "^model hccm_tf.models:: .*no attribute ''"),
        (":Deep", "^model :Deep: "),
        (".models:Deep", "^model .models:Deep: "),
        ("hccm_tf.models:Model", "a subclass of hccm_tf.models.Model with a name"),
        ("hccm_tf.models:ImageInput", "a subclass .*ImageInput"),
        ("hccm_tf.models:build_model", "a subclass .*function build_model"),
        ("hccm_tf.models:Trees", "a subclass .*Trees"),
    ],
)
def test_names_of_no_model(name, message):
    with pytest.raises(ValueError, match=message):
        find_model(name)
