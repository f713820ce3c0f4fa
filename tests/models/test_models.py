import keras
import numpy as np
import pytest
import tensorflow as tf

from hccm_tf import models
from hccm_tf.data.dataset import Batches
from hccm_tf.data.deduplication import deduplicate
from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.models import PIXEL_MODELS, build_form, build_model
from hccm_tf.models.attention import DotProductAttention
from hccm_tf.models.layer_pool import LayerPool
from hccm_tf.models.non_visual import id_dropout, products
from hccm_tf.models.options import ModelOptions
from tests.conftest import TINY

# Those that take pixels have tests of their own.
MODELS = [name for name in models.MODELS if name not in PIXEL_MODELS]
IMAGE_MODELS = [name for name in models.IMAGE_MODELS if name not in PIXEL_MODELS]
SHAPE = (5, 4, 6)
BATCH, LENGTH, ROWS, CATEGORIES = 12, 4, 9, 5
SMALL = {**TINY, "id_dropout": 0.0}
SCHEMA = Schema(
    (
        Feature("user_id", "vocabulary", size=7, frequency=2.0),
        Feature("item_id", "vocabulary", size=20, frequency=1.5, candidate=True),
        Feature(
            "category",
            "vocabulary",
            "string",
            size=CATEGORIES,
            frequency=9.0,
            candidate=True,
        ),
        Feature("zip", "hash", "string", size=5, embedding_dim=3),
        Feature("price", "float", "float32", candidate=True),
        Feature("history_item_id", "sequence", shares="item_id"),
        Feature("history_category", "sequence", "string", shares="category"),
    ),
    max_history=LENGTH,
)


# How the images are attended and compared.
ATTENTIONS = {
    "din": {"image_attention": "din", "similarity": "cosine"},
    "dot_product": {"image_attention": "dot_product", "similarity": "cosine"},
    "multi_query": {"image_attention": "multi_query", "similarity": "histogram"},
}
attentions = pytest.mark.parametrize("attention", ATTENTIONS)


def _build(name, seed=0, **options):
    keras.utils.set_random_seed(seed)
    if name in IMAGE_MODELS:
        options["feature_map_shape"] = SHAPE
    model = build_model(name, SCHEMA, **{**SMALL, **options})
    # Away from zero biases and symmetric starts, so that every part has a say.
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.2, weight.shape))
    for weight in model.non_trainable_variables:
        if weight.path.endswith("moving_mean"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
        if weight.path.endswith("moving_variance"):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return model


def _slots(seed=0):
    """A batch as the data has it: store rows and categories of each slot, maps."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, LENGTH + 1, BATCH)
    lengths[:2] = 0, LENGTH
    padding = np.arange(LENGTH) >= lengths[:, None]
    features = {
        "user_id": rng.integers(1, 9, BATCH),
        "item_id": rng.integers(1, 22, BATCH),
        "category": rng.integers(1, CATEGORIES + 2, BATCH),
        "zip": rng.integers(2, 7, BATCH),
        "history_item_id": rng.integers(1, 22, (BATCH, LENGTH)) * ~padding,
        "history_category": rng.integers(1, 7, (BATCH, LENGTH)) * ~padding,
    }
    features = {name: value.astype(np.int32) for name, value in features.items()}
    features["price"] = rng.normal(size=BATCH).astype(np.float32)
    candidate_rows = rng.integers(1, ROWS, BATCH)
    candidate_rows[3] = 0
    history_rows = rng.integers(0, ROWS, (BATCH, LENGTH)) * ~padding
    maps = rng.normal(size=(ROWS, *SHAPE)).astype(np.float16)
    maps[0] = 0
    return features, candidate_rows, history_rows, maps


def _inputs(name, seed=0):
    """The deduplicated form of the batch."""
    features, candidate_rows, history_rows, maps = _slots(seed)
    if name not in IMAGE_MODELS:
        return features
    rows, category, candidate_image, history_image = (
        tensor.numpy()
        for tensor in deduplicate(
            tf.constant(candidate_rows),
            tf.constant(features["category"]),
            tf.constant(history_rows),
            tf.constant(features["history_category"]),
        )
    )
    return {
        **features,
        "image_map": maps[rows],
        "image_category": category,
        "candidate_image": candidate_image,
        "history_image": history_image,
    }


def _plain_inputs(seed=0):
    """One row of `image_map` for each slot, nothing shared."""
    features, candidate_rows, history_rows, maps = _slots(seed)
    rows = np.concatenate([[0], candidate_rows, history_rows.ravel()])
    category = np.concatenate(
        [[0], features["category"], features["history_category"].ravel()]
    )
    number = np.arange(len(rows)) * (rows > 0)
    return {
        **features,
        "image_map": maps[rows],
        "image_category": (category * (rows > 0)).astype(np.int32),
        "candidate_image": number[1 : BATCH + 1].astype(np.int32),
        "history_image": number[BATCH + 1 :].reshape(BATCH, LENGTH).astype(np.int32),
    }


def _predict(model, inputs):
    return model(inputs, training=False).numpy()[:, 0]


@attentions
@pytest.mark.parametrize("name", MODELS)
def test_probabilities_and_gradients(name, attention):
    if name not in IMAGE_MODELS and attention != "din":
        pytest.skip("the model has no images")
    model = _build(name, **ATTENTIONS[attention], products=True)
    inputs = _inputs(name)
    p = _predict(model, inputs)
    assert p.shape == (BATCH,)
    assert ((p > 0) & (p < 1)).all() and p.std() > 1e-4
    labels = np.arange(BATCH)[:, None] % 2
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        loss = tf.reduce_mean(keras.losses.binary_crossentropy(labels, outputs))
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


@attentions
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_sharing_images_equals_encoding_every_slot(name, attention):
    model = _build(name, **ATTENTIONS[attention], products=True)
    shared, plain = _inputs(name), _plain_inputs()
    assert len(shared["image_map"]) < len(plain["image_map"])
    np.testing.assert_allclose(
        _predict(model, shared), _predict(model, plain), atol=1e-5
    )


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_images_count_only_where_the_candidate_has_one(name):
    model = _build(name, similarity="cosine", products=True)
    inputs = _inputs(name)
    before = _predict(model, inputs)
    after = _predict(model, {**inputs, "image_map": inputs["image_map"][::-1]})
    changed = np.abs(after - before) > 1e-6
    assert inputs["candidate_image"][3] == 0
    assert not changed[3]
    assert changed.sum() >= BATCH / 2
    without = _predict(
        model, {**inputs, "candidate_image": 0 * inputs["candidate_image"]}
    )
    np.testing.assert_allclose(without[3], before[3], atol=1e-6)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_padding_rows_leave_no_trace_in_training(name):
    inputs = _inputs(name)
    labels = np.arange(BATCH, dtype=np.float32)[:, None] % 2
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
        model = _build(name)
        model.compile(
            keras.optimizers.SGD(0.1), "binary_crossentropy", jit_compile=False
        )
        loss = model.train_on_batch(batch, labels)
        states.append([np.float32(loss), *model.get_weights()])
    for one, other in zip(*states, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    start = _build(name).get_weights()
    moved = [np.abs(a - b).max() for a, b in zip(start, states[0][1:], strict=True)]
    assert np.mean(np.array(moved) > 0) > 0.5


def test_dot_product_attention_is_a_softmax():
    rng = np.random.default_rng(0)
    query = rng.normal(size=(3, 6)).astype(np.float32)
    keys = rng.normal(size=(3, 5, 6)).astype(np.float32)
    mask = rng.random((3, 5)) < 0.6
    mask[0], mask[1, 0] = False, True
    expected = np.zeros((3, 6))
    for row in range(3):
        chosen = keys[row][mask[row]]
        if len(chosen):
            weight = np.exp(chosen @ query[row] / np.sqrt(6))
            expected[row] = weight @ chosen / weight.sum()
    found = DotProductAttention()(*map(tf.constant, (query, keys, mask)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_which_models_see_the_category_in_an_image(name):
    encoder = _build(name).get_layer("image_encoder")
    maps = _slots()[3][1:]
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
    maps = _slots()[3]
    kinds = np.ones(len(maps), np.int32)
    plain = _build(name).get_layer("image_encoder")
    scaled = _build(name, channel_mean=mean, channel_std=std)
    scaled = scaled.get_layer("image_encoder")
    scaled.set_weights(plain.get_weights())
    expected = plain({"image_map": maps, "image_category": kinds}, training=False)
    raw = (maps.astype(np.float32) * std + mean).astype(np.float16)
    found = scaled({"image_map": raw, "image_category": kinds}, training=False)
    np.testing.assert_allclose(found, expected, atol=1e-2)
    other = plain({"image_map": raw, "image_category": kinds}, training=False)
    assert np.abs(other - expected).max() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_saving_and_loading(name, tmp_path):
    options = {"similarity": "cosine"} if name in IMAGE_MODELS else {}
    model = _build(name, id_dropout=0.1, dropout=0.2, **options)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = _inputs(name)
    np.testing.assert_allclose(_predict(loaded, inputs), _predict(model, inputs))


@pytest.mark.parametrize("name", MODELS)
def test_all_models_have_the_same_other_features(name):
    model = _build(name)
    images = {"image_map", "image_category", "candidate_image", "history_image"}
    names = {tensor.name for tensor in model.inputs}
    assert names - images == {feature.name for feature in SCHEMA.features}
    assert bool(names & images) == (name in IMAGE_MODELS)


def _ranker_inputs(model, inputs):
    """What the ranker takes of a batch."""
    if model.name not in IMAGE_MODELS:
        return inputs
    encoder = model.get_layer("image_encoder")
    vectors = encoder(
        {name: inputs[name] for name in ("image_map", "image_category")},
        training=False,
    ).numpy()
    inputs = dict(inputs)
    for name in ("image_map", "image_category"):
        del inputs[name]
    for name in ("candidate", "history"):
        inputs[f"{name}_representation"] = vectors[inputs[f"{name}_image"]]
    return inputs


@attentions
@pytest.mark.parametrize("name", MODELS)
def test_ranking_candidates_equals_one_row_each(name, attention):
    options = {**ATTENTIONS[attention], "products": True}
    model = _build(name, **options)
    images = {"feature_map_shape": SHAPE} if name in IMAGE_MODELS else {}
    rank = build_form("rank", model, SCHEMA, **{**SMALL, **options, **images})
    inputs = _ranker_inputs(model, _inputs(name))
    candidate = {f.name for f in SCHEMA.scalars if f.candidate}
    candidate |= {"candidate_image", "candidate_representation"}
    # Three users, each with the candidates of all rows.
    users = [1, 2, 5]
    requests = {
        name: np.stack([value] * 3) if name in candidate else value[users]
        for name, value in inputs.items()
    }
    found = rank(requests, training=False).numpy()[..., 0]
    ranker = model.get_layer("ranker") if name in IMAGE_MODELS else model
    for row, user in enumerate(users):
        rows = {
            name: value if name in candidate else np.stack([value[user]] * BATCH)
            for name, value in inputs.items()
        }
        np.testing.assert_allclose(found[row], _predict(ranker, rows), atol=1e-5)
    assert found.std() > 1e-4
    assert {id(w) for w in rank.weights} <= {id(w) for w in model.weights}


@pytest.mark.parametrize("image_attention", ["din", "dot_product"])
@pytest.mark.parametrize("name", ["din", "hccm"])
def test_explanations_are_the_weights_of_the_attentions(name, image_attention):
    options = {"image_attention": image_attention}
    model = _build(name, **options)
    images = {"feature_map_shape": SHAPE} if name in IMAGE_MODELS else {}
    explain = build_form("explain", model, SCHEMA, **{**SMALL, **options, **images})
    inputs = _ranker_inputs(model, _inputs(name))
    weights = {k: v.numpy() for k, v in explain(inputs, training=False).items()}
    clicks = inputs["history_item_id"] != 0
    assert (weights["history_attention"][~clicks] == 0).all()
    assert np.abs(weights["history_attention"][clicks]).min() > 0
    assert ("image_attention" in weights) == (name == "hccm")
    if name == "hccm":
        attended = weights["image_attention"]
        there = (inputs["history_image"] != 0) & (inputs["candidate_image"] != 0)[
            :, None
        ]
        assert (attended[~there] == 0).all()
        if image_attention == "dot_product":
            total = there.any(axis=1).astype(float)
            np.testing.assert_allclose(attended.sum(axis=1), total, atol=1e-5)


def test_multi_query_explains_both_attentions():
    """At most as many clicks as dimensions: one set of weights gives the output."""
    options = {"image_attention": "multi_query", "feature_map_shape": SHAPE}
    model = _build("hccm", **options)
    explain = build_form("explain", model, SCHEMA, **{**SMALL, **options})
    inputs = _ranker_inputs(model, _inputs("hccm"))
    weights = explain(inputs, training=False)
    assert set(weights) == {
        "history_attention",
        "image_attention",
        "image_attention_by_ids",
    }
    ranker = model.get_layer("ranker")
    attention = keras.Model(ranker.input, ranker.get_layer("image_attention").output)
    expected = attention(inputs, training=False).numpy()
    expected *= (inputs["candidate_image"] != 0)[:, None]
    for name, half in zip(
        ("image_attention", "image_attention_by_ids"),
        np.split(expected, 2, axis=-1),
        strict=True,
    ):
        found = np.einsum("bt,btd->bd", weights[name], inputs["history_representation"])
        np.testing.assert_allclose(found, half, atol=1e-4)
        assert (weights[name].numpy()[inputs["history_image"] == 0] == 0).all()
        assert np.abs(half).max() > 1e-2


@pytest.mark.parametrize("shape", [(3, 6), (3, 2, 6)])
def test_products_of_two_attentions(shape):
    rng = np.random.default_rng(0)
    query, image, by_ids = rng.normal(size=(3, *shape))
    history, mask = rng.normal(size=(3, 5, 6)), rng.random((3, 5)) < 0.6
    mask[0], mask[1:, 0] = False, True
    mean = np.stack(
        [
            h[m].mean(axis=0) if m.any() else 0 * h[0]
            for h, m in zip(history, mask, strict=True)
        ]
    )
    mean = np.broadcast_to(mean.reshape(3, *[1] * (len(shape) - 2), 6), shape)
    found = products(
        *map(tf.constant, (query, np.concatenate([image, by_ids], -1), history, mask))
    )
    expected = [query * image, query * by_ids, query * mean]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_ids_ask_for_other_images():
    """A candidate's price does not turn its second query, its category does."""
    model = _build("hcm", image_attention="multi_query")
    ranker = model.get_layer("ranker")
    attention = keras.Model(ranker.input, ranker.get_layer("image_attention").output)
    inputs = _ranker_inputs(model, _inputs("hcm"))
    before = np.split(attention(inputs, training=False), 2, axis=-1)
    for name, turns in (("price", False), ("category", True), ("item_id", True)):
        other = {**inputs, name: inputs[name][::-1]}
        image, ids = np.split(attention(other, training=False), 2, axis=-1)
        np.testing.assert_allclose(image, before[0], atol=1e-6)
        assert (np.abs(ids - before[1]).max() > 1e-3) == turns


def test_multi_query_needs_an_id_of_the_candidate():
    schema = Schema((Feature("price", "float", candidate=True),))
    options = {"image_attention": "multi_query", "feature_map_shape": SHAPE}
    with pytest.raises(ValueError, match="multi_query.*Received: none"):
        build_model("hcm", schema, **SMALL, **options)


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
    model = _build(name, **options)
    encoder = model.get_layer("image_encoder")
    cnn = encoder.get_layer("hybrid_cnn")
    assert (cnn.attention is not None) == attends
    assert (cnn.prior is not None) == has_prior
    assert cnn.convs[0].kernel.shape[2] == channels
    form = {**SMALL, **options, "feature_map_shape": SHAPE}
    form = build_form("encode_images", model, SCHEMA, **form)
    maps = _slots()[3][1:]
    inputs = {"image_map": maps, "image_category": np.arange(1, ROWS) % 4 + 1}
    found = form(inputs, training=False)
    expected = encoder(inputs, training=False)
    assert isinstance(found, dict) == attends
    if attends:
        weights = found["channel_attention"].numpy()
        assert weights.shape == (ROWS - 1, SHAPE[-1]) and weights.std() > 0
        found = found["representation"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def _pca_options(components=6):
    rng = np.random.default_rng(3)
    return {
        "projection": "pca",
        "pca_mean": rng.normal(size=6).astype(np.float32),
        "pca_components": rng.normal(size=(components, 6)).astype(np.float32),
        "image_embedding_dim": components,
    }


def test_the_pca_projection_is_frozen(tmp_path):
    options = _pca_options(4)
    model = _build("din_fixed_cnn", **options)
    inputs = _inputs("din_fixed_cnn")
    pooled = inputs["image_map"].astype(np.float64).mean(axis=(1, 2))
    expected = (pooled - options["pca_mean"]) @ options["pca_components"].T
    model.compile("sgd", "binary_crossentropy", jit_compile=False)
    model.train_on_batch(inputs, np.arange(BATCH, dtype=np.float32)[:, None] % 2)
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
    with pytest.raises(ValueError, match=r"pca_components of shape \(\d+, 6\)"):
        build_model("din_fixed_cnn", SCHEMA, feature_map_shape=SHAPE, **options)


def test_the_channel_attention_of_new_images():
    model = _build("hccm")
    form = build_form("encode_images", model, SCHEMA, **SMALL, feature_map_shape=SHAPE)
    maps = _slots()[3][1:]
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


def test_models_without_histories():
    schema = Schema((Feature("a", "integer", size=3), Feature("b", "float")))
    for name in ("base", "din", "hcm"):
        options = {"feature_map_shape": SHAPE} if name == "hcm" else {}
        model = build_model(name, schema, **SMALL, **options)
        inputs = {k: v for k, v in _inputs(name).items() if k in model.input}
        inputs.update(a=np.ones(BATCH, np.int32), b=np.ones(BATCH, np.float32))
        assert _predict(model, inputs).shape == (BATCH,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deep", {}, "model is one of.*deep"),
        ("hccm", {}, "feature_map_shape"),
        ("din", {"image_attention": "cosine"}, "image_attention is one of.*cosine"),
        ("din", {"similarity": "dot"}, "similarity is one of.*dot"),
        ("din", {"projection": "svd"}, "projection is one of.*svd"),
    ],
)
def test_unknown_names_and_values(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, SCHEMA, **options)


def test_hccm_needs_categories():
    schema = Schema((Feature("item_id", "vocabulary", size=3),))
    with pytest.raises(ValueError, match="category"):
        build_model("hccm", schema, feature_map_shape=SHAPE)


def test_id_dropout_follows_the_features_frequency():
    options = ModelOptions(id_dropout=3.0)
    for frequency, rate in ((1.0, 0.75), (3.0, 0.5), (297.0, 0.01)):
        feature = Feature("brand", "vocabulary", size=9, frequency=frequency)
        assert id_dropout(feature, options, LayerPool(), "brand").rate == pytest.approx(
            rate
        )
    hashed = Feature("brand", "hash", size=9, frequency=3.0)
    assert id_dropout(hashed, options, LayerPool(), "brand").rate == 0
    unknown = Feature("brand", "vocabulary", size=9)
    assert (
        id_dropout(unknown, ModelOptions(id_dropout=0), LayerPool(), "brand").rate == 0
    )
    with pytest.raises(InputError, match="brand has no frequency"):
        id_dropout(unknown, options, LayerPool(), "brand")
    with pytest.raises(ValueError, match="id_dropout.*-1"):
        ModelOptions(id_dropout=-1)


@pytest.mark.parametrize("name", ["item_id", "category"])
def test_the_out_of_vocabulary_row_is_trained(shop, name):
    model = build_model(
        "hccm",
        shop.schema,
        id_dropout=1e4,
        feature_map_shape=shop.store.shape,
        **TINY,
    )
    model.compile("sgd", "binary_crossentropy", jit_compile=False)
    rows = [w for w in model.trainable_weights if w.path.endswith("embeddings")]
    rows = [w for w in rows if f"{name}_embedding" in w.path or "prior" in w.path]
    before = [np.asarray(w)[1].copy() for w in rows]
    dataset = Batches(shop.data, shop.schema, 256, shop.store).dataset("train")
    inputs, labels, _ = next(iter(dataset))
    model.train_on_batch(inputs, labels)
    assert len(rows) == 2
    for weight, old in zip(rows, before, strict=True):
        assert (np.asarray(weight)[1] != old).any(), weight.path
