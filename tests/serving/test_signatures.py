"""The signatures of an export against the estimator, NumPy and each other."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hccm_tf import CTREstimator
from hccm_tf.data import ids
from hccm_tf.data.dataset import Batches
from hccm_tf.data.feature import Feature
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.pca import fit_pca
from hccm_tf.errors import InputError
from hccm_tf.models import IMAGE_MODELS, build_model
from hccm_tf.serving.export import build_forms, encode_images_of
from hccm_tf.serving.representations import encode_catalogue, quantize_rows
from hccm_tf.serving.request import Impressions, impressions_request, rank_request
from hccm_tf.serving.signatures import Signatures
from tests.conftest import TINY

ALL = {
    "serving_default",
    "rank",
    "serve_examples",
    "regress",
    "explain",
    "encode_images",
    "image_keys",
}
ROWS = 12


@pytest.fixture(scope="module", params=["din", "hccm"])
def served(request, shop, fitted, versions):
    """`(estimator, name → signature, impressions, whether it has images)`."""
    estimator = fitted[request.param]
    signatures = tf.saved_model.load(str(versions[request.param])).signatures
    impressions = Impressions(shop.data, "test", ROWS)
    return estimator, signatures, impressions, request.param in IMAGE_MODELS


def _ask(signature, request):
    specs = signature.structured_input_signature[1]
    tensors = {k: tf.constant(v, specs[k].dtype) for k, v in request.items()}
    return {name: value.numpy() for name, value in signature(**tensors).items()}


def test_names(served):
    _, signatures, _, with_images = served
    names = ALL if with_images else ALL - {"encode_images", "image_keys"}
    assert set(signatures) == names


def test_examples_give_the_models_answers(served, shop):
    estimator, signatures, impressions, _ = served
    expected = estimator.predict_proba(shop.data)[:ROWS, 1]
    records = np.array(impressions.records, object)
    for name, given_as, answer in (
        ("serve_examples", "examples", "ctr"),
        ("regress", "inputs", "outputs"),
    ):
        found = _ask(signatures[name], {given_as: records})
        np.testing.assert_allclose(found[answer], expected, atol=1e-5)


def _one_row_each(rows, schema, with_images):
    """The impressions that `rank_request` asks about, one row for each candidate."""
    users = [feature.name for feature in schema.scalars if not feature.candidate]
    users += [name for name in rows[0] if name.startswith("history_")]
    rows = [row | {name: rows[0][name] for name in users} for row in rows]
    return impressions_request(rows, schema, with_images)


def test_rank_equals_one_row_for_each_candidate(served, shop):
    _, signatures, impressions, with_images = served
    rows = impressions.rows
    found = _ask(signatures["rank"], rank_request(rows, shop.schema, with_images))
    plain = _one_row_each(rows, shop.schema, with_images)
    expected = _ask(signatures["serving_default"], plain)["ctr"]
    assert expected.std() > 1e-4
    np.testing.assert_allclose(found["ctr"], expected[None], atol=1e-6)


def _pad(value, shape):
    value = np.asarray(value)
    padding = [(0, size - old) for size, old in zip(shape, value.shape, strict=True)]
    # As TensorFlow Serving pads when it merges requests: with the first value.
    first = value.flat[0] if value.size else np.zeros(1, value.dtype)[0]
    return np.pad(value, padding, constant_values=first)


def test_merged_requests_give_the_answers_of_each(served, shop):
    """Padded as server-side batching pads."""
    _, signatures, impressions, with_images = served
    parts = [impressions.rows[:3], impressions.rows[5:]]
    parts = [rank_request(rows, shop.schema, with_images) for rows in parts]
    merged = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        shape = np.max([value.shape for value in values], axis=0)
        merged[name] = np.concatenate([_pad(value, shape) for value in values])
    together = _ask(signatures["rank"], merged)["ctr"]
    for row, part in enumerate(parts):
        alone = _ask(signatures["rank"], part)["ctr"][0]
        np.testing.assert_allclose(together[row, : len(alone)], alone, atol=1e-6)


def test_masked_candidates_answer_0(served, shop):
    _, signatures, impressions, with_images = served
    request = rank_request(impressions.rows, shop.schema, with_images)
    before = _ask(signatures["rank"], request)["ctr"]
    mask = np.arange(ROWS)[None] % 3 > 0
    after = _ask(signatures["rank"], request | {"candidate_mask": mask})["ctr"]
    np.testing.assert_allclose(after, np.where(mask, before, 0), atol=1e-7)


def test_explain_gives_each_clicks_weight(served, shop):
    _, signatures, impressions, with_images = served
    request = impressions_request(impressions.rows, shop.schema, with_images)
    weights = _ask(signatures["explain"], request)
    names = {"history_attention", "image_attention"}
    assert set(weights) == (names if with_images else {"history_attention"})
    beyond = np.arange(request["history_item_id"].shape[1])
    beyond = beyond >= request["history_length"][:, None]
    for value in weights.values():
        assert value.shape == beyond.shape
        assert (value[beyond] == 0).all() and (np.abs(value[~beyond]) > 0).mean() > 0.5


def test_encode_images_gives_the_tables_rows(served, shop):
    estimator, signatures, _, with_images = served
    if not with_images:
        pytest.skip("the model has no images")
    rows = shop.store.find(ids.image_keys(shop.items.image.to_numpy(object)))
    items = shop.items[rows.numpy() > 0].head(20)
    rows = shop.store.find(ids.image_keys(items.image.to_numpy(object)))
    maps = shop.store.gather(rows)
    found = _ask(
        signatures["encode_images"],
        {"image_map": maps, "category": items.category.to_numpy(object)},
    )
    category = estimator.schema_.index("category", tf.constant(items.category))
    expected = estimator.model_.get_layer("image_encoder")(
        {"image_map": maps, "image_category": category}, training=False
    )
    np.testing.assert_allclose(found["representation"], expected, atol=1e-5)
    weights = found["channel_attention"]
    assert weights.shape == (20, maps.shape[-1])
    assert ((weights > 0) & (weights < 1)).all() and weights.std() > 0
    none = {"image_map": maps[:0], "category": np.zeros(0, object)}
    assert _ask(signatures["encode_images"], none)["representation"].shape[0] == 0


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_no_candidate(served, shop, count):
    _, signatures, impressions, with_images = served
    request = rank_request(impressions.rows[:2], shop.schema, with_images)
    candidates = {name for name, value in request.items() if value.shape == (1, 2)}
    assert {"item_id", "candidate_mask"} <= candidates
    none = {
        name: value[:count, :0] if name in candidates else value[:count]
        for name, value in request.items()
    }
    assert _ask(signatures["rank"], none)["ctr"].shape == (count, 0)
    request = impressions_request(impressions.rows, shop.schema, with_images)
    some = {name: value[:count] for name, value in request.items()}
    assert _ask(signatures["serving_default"], some)["ctr"].shape == (count,)
    records = np.array(impressions.records[:count], object)
    found = _ask(signatures["serve_examples"], {"examples": records})["ctr"]
    assert found.shape == (count,)


def _bad_requests(request):
    """Requests whose sizes do not fit, with the inputs that the error names."""
    short = request | {"item_id": request["item_id"][:, :-1]}
    yield short, "item_id"
    yield request | {"user_id": np.repeat(request["user_id"], 2)}, "user_id"
    history = request["history_item_id"]
    wide = np.concatenate([history, history], axis=1)
    yield request | {"history_item_id": wide}, "history_item_id"


def test_sizes_that_do_not_fit_name_the_input(served, shop):
    _, signatures, impressions, with_images = served
    request = rank_request(impressions.rows, shop.schema, with_images)
    for bad, name in _bad_requests(request):
        with pytest.raises(tf.errors.InvalidArgumentError, match=name):
            _ask(signatures["rank"], bad)


def test_examples_that_are_none(served):
    _, signatures, impressions, _ = served
    example = tf.train.Example.FromString(impressions.records[0])
    del example.features.feature["user_id"]
    without = np.array([example.SerializeToString()], object)
    for records, message in (
        (np.array([b"no example"], object), "parse|Example"),
        (without, "user_id"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            _ask(signatures["serve_examples"], {"examples": records})


def test_a_history_that_is_too_long_is_cut(served, shop):
    _, signatures, impressions, with_images = served
    request = impressions_request(impressions.rows, shop.schema, with_images)
    longest = int(request["history_length"].max())
    rows = request["history_length"] == longest
    assert longest == shop.schema.max_history and rows.any()
    full = {name: value[rows] for name, value in request.items()}
    longer = {}
    for name, value in full.items():
        if value.ndim == 2:
            # Older clicks stand in front.
            longer[name] = np.concatenate([value[:, :5], value[:, :longest]], axis=1)
        else:
            longer[name] = value
    longer["history_length"] = full["history_length"] + 5
    np.testing.assert_allclose(
        _ask(signatures["serving_default"], longer)["ctr"],
        _ask(signatures["serving_default"], full)["ctr"],
        atol=1e-6,
    )


def test_every_kind_of_feature_in_training_and_serving(shop):
    """Of one schema with all kinds, where negatives were sampled, and any weights."""
    kinds = {
        "user_id": {"kind": "hash", "size": 50},
        "item_id": {"kind": "vocabulary"},
        "category": {"kind": "vocabulary"},
        "price": {"kind": "float"},
    }
    schema = dataclasses.replace(shop.schema, negative_keep_rate=0.3)
    features = [
        dataclasses.replace(f, **kinds.get(f.name, {})) for f in schema.features
    ]
    schema = dataclasses.replace(schema, features=tuple(features))
    assert {f.kind for f in schema.features} >= {"hash", "vocabulary", "float"}
    options = {**TINY, "feature_map_shape": shop.store.shape}
    model = build_model("hcm", schema, **options)
    for weight in model.weights:
        weight.assign(weight + 0.1 * np.random.default_rng(0).normal(size=weight.shape))
    table = encode_images_of(model, schema, shop.data, shop.store, "float32", options)
    signatures = Signatures(schema, build_forms(model, schema, options), table)
    inputs, *_ = next(
        iter(Batches(shop.data, schema, ROWS, shop.store).dataset("test"))
    )
    kept = model(inputs, training=False).numpy()[:, 0]
    expected = kept / (kept + (1 - kept) / 0.3)
    assert expected.std() > 1e-3
    impressions = Impressions(shop.data, "test", ROWS)
    rows = impressions.rows
    records = tf.constant(np.array(impressions.records, object))
    answers = [
        signatures.serving_default(impressions_request(rows, schema, True))["ctr"],
        signatures.serve_examples(records)["ctr"],
        signatures.regress(records)["outputs"],
    ]
    for answer in answers:
        np.testing.assert_allclose(answer, expected, atol=1e-5)
    ranked = signatures.rank(rank_request(rows, schema, True))["ctr"]
    plain = signatures.serving_default(_one_row_each(rows, schema, True))["ctr"]
    np.testing.assert_allclose(ranked, plain[None], atol=1e-6)


def test_an_encoder_without_categories_knows_an_image_in_any(shop):
    schema, options = shop.schema, {**TINY, "feature_map_shape": shop.store.shape}
    images = tf.constant([name for name in shop.items.image if name])
    keys = ids.image_keys(images)
    for name in ("hcm", "hccm"):
        model = build_model(name, schema, **options)
        arguments = (model, schema, shop.data, shop.store, "float16", options)
        table = encode_images_of(*arguments)
        unknown = table.find(keys, tf.ones_like(keys, tf.int32)).numpy()
        stored = shop.store.find(keys).numpy()
        expected = (stored > 0) if name == "hcm" else np.zeros(len(keys), bool)
        np.testing.assert_array_equal(unknown > 0, expected)
        signatures = Signatures(schema, build_forms(model, schema, options), table)
        by_category = "category" in signatures.endpoints()["image_keys"][1]
        assert by_category == (name == "hccm")


def test_the_clicked_images_ids_may_be_a_feature(shop):
    history = Feature("history_image", "sequence", shares="image")
    features = (*shop.schema.features, history)
    schema = dataclasses.replace(shop.schema, features=features)
    model = build_model("din", schema, **TINY)
    signatures = Signatures(schema, build_forms(model, schema, TINY))
    impressions = Impressions(shop.data, "test", ROWS)
    request = impressions_request(impressions.rows, schema, with_images=False)
    found = signatures.serving_default(request)["ctr"]
    records = tf.constant(np.array(impressions.records, object))
    expected = signatures.serve_examples(records)["ctr"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    inputs, *_ = next(iter(Batches(shop.data, schema, ROWS).dataset("test")))
    expected = model(inputs, training=False)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_other_options_than_the_models_are_an_error(fitted):
    estimator = fitted["din"]
    options = {**estimator.model_options, "hidden_units": (8, 8)}
    with pytest.raises(ValueError, match="not the options.*hidden_1"):
        build_forms(estimator.model_, estimator.schema_, options)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_representations_that_do_not_fit_are_an_error(dtype):
    vectors = np.ones((3, 4), np.float32)
    vectors[1, 2] = np.nan if dtype == "int8" else 1e5
    with pytest.raises(InputError, match="too large for"):
        quantize_rows(vectors, dtype)


INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 40)
STRINGS = st.binary(max_size=40) | st.sampled_from([b"", b"0001.jpg", b"\xff" * 10**6])
FLOATS = st.floats(width=32)


@st.composite
def _requests(draw, spec):
    rows, candidates, width = (draw(st.integers(0, 3)) for _ in range(3))
    request = {}
    for name, value in spec.items():
        second = candidates if name in _candidates_of(spec) else width
        shape = (rows, second)[: value.shape.rank]
        count = int(np.prod(shape))
        kind = {tf.int64: INTEGERS, tf.string: STRINGS, tf.float32: FLOATS}.get(
            value.dtype, st.booleans()
        )
        values = draw(st.lists(kind, min_size=count, max_size=count))
        dtype = object if value.dtype == tf.string else value.dtype.as_numpy_dtype
        array = np.empty(count, dtype)
        array[:] = values
        request[name] = array.reshape(shape)
    return request


def _candidates_of(spec):
    """The inputs `[R, N]` of `rank`."""
    if "candidate_mask" not in spec:
        return set()
    histories = {name for name in spec if name.startswith("history_")}
    return {name for name, v in spec.items() if v.shape.rank == 2} - histories


@pytest.mark.parametrize("name", ["serving_default", "rank", "explain"])
def test_any_request_has_a_finite_answer_or_a_named_error(served, name):
    """2 models x 3 signatures x 350 requests, of ids and values of all kinds."""
    signature = served[1][name]
    spec = signature.structured_input_signature[1]

    @settings(
        max_examples=350,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(request=_requests(spec))
    def ask(request):
        lengths, width = request["history_length"], request["history_item_id"].shape[1]
        if ((lengths < 0) | (lengths > width)).any():
            with pytest.raises(tf.errors.InvalidArgumentError, match="history_length"):
                _ask(signature, request)
            lengths %= width + 1
        for key, answer in _ask(signature, request).items():
            assert np.isfinite(answer).all(), key
            if key == "ctr":
                assert ((answer >= 0) & (answer <= 1)).all()

    ask()


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_small_tables_answer_almost_the_same(fitted, shop, dtype):
    model = fitted["hccm"].model_
    catalogue = DataFolder(shop.data).catalogue()
    category = shop.schema.index("category", catalogue["category"].to_numpy())
    table = encode_catalogue(
        model.get_layer("image_encoder"),
        shop.store,
        catalogue["image_key"].to_numpy(),
        category.numpy(),
        dtype,
    )
    assert table.representation_vectors.dtype == dtype
    records = np.array(Impressions(shop.data, "test", 500).records, object)
    forms = {"ranker": model.get_layer("ranker")}
    found = Signatures(shop.schema, forms, table).serve_examples(records)["ctr"]
    expected = fitted["hccm"].predict_proba(shop.data)[: len(records), 1]
    difference = np.abs(found - expected).max()
    assert 0 < difference < {"float16": 1e-3, "int8": 1e-2}[dtype]


def _fit(shop, model, options, **arguments):
    return CTREstimator(
        model,
        shop.maps,
        epochs=1,
        batch_size=525,
        learning_rate=1e-2,
        model_options={**TINY, **options},
        **arguments,
    ).fit(shop.data)


def test_multi_query_and_histogram_are_served(shop, tmp_path):
    options = {"image_attention": "multi_query", "similarity": "histogram"}
    estimator = _fit(shop, "hccm", options)
    signatures = tf.saved_model.load(str(estimator.export(tmp_path))).signatures
    impressions = Impressions(shop.data, "test", ROWS)
    records = np.array(impressions.records, object)
    found = _ask(signatures["serve_examples"], {"examples": records})
    expected = estimator.predict_proba(shop.data)[:ROWS, 1]
    np.testing.assert_allclose(found["ctr"], expected, atol=1e-5)
    rows = impressions.rows
    ranked = _ask(signatures["rank"], rank_request(rows, shop.schema, True))
    plain = _one_row_each(rows, shop.schema, True)
    expected = _ask(signatures["serving_default"], plain)["ctr"]
    np.testing.assert_allclose(ranked["ctr"], expected[None], atol=1e-6)
    request = impressions_request(rows, shop.schema, True)
    assert set(_ask(signatures["explain"], request)) == {
        "history_attention",
        "image_attention",
        "image_attention_by_ids",
    }


def test_a_pca_projection_is_fitted_and_served(shop):
    options = {"projection": "pca", "image_embedding_dim": 100}
    estimator = _fit(shop, "din_fixed_cnn", options)
    mean, components = fit_pca(shop.store, 100)
    maps = shop.store.gather(tf.range(1, 9, dtype=tf.int64)).numpy()
    pooled = maps.astype(np.float64).mean(axis=(1, 2)) - shop.store.channel_mean
    expected = (pooled / shop.store.channel_std - mean) @ components.T
    encoder = estimator.model_.get_layer("image_encoder")
    images = {"image_map": maps, "image_category": np.ones(8, np.int32)}
    np.testing.assert_allclose(encoder(images), expected, atol=1e-3)
    assert expected.shape[1] == len(components) < 100
    table = encode_images_of(
        estimator.model_,
        shop.schema,
        shop.data,
        shop.store,
        "float32",
        estimator._options,
    )
    forms = build_forms(estimator.model_, shop.schema, estimator._options)
    records = np.array(Impressions(shop.data, "test", ROWS).records, object)
    found = Signatures(shop.schema, forms, table).serve_examples(records)["ctr"]
    expected = estimator.predict_proba(shop.data)[:ROWS, 1]
    np.testing.assert_allclose(found, expected, atol=1e-5)
