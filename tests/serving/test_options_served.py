"""The signatures of models and schemas with other options than the shop's."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from hccm_tf import CTREstimator
from hccm_tf.data import ids
from hccm_tf.data.dataset import Batches
from hccm_tf.data.feature import Feature
from hccm_tf.data.pca import fit_pca
from hccm_tf.models.din import DIN
from hccm_tf.serving.export import encode_images_of, export, item_table_of
from hccm_tf.serving.request import Impressions, impressions_request, rank_request
from hccm_tf.serving.signatures import Signatures
from tests.conftest import tiny
from tests.serving.asking import ROWS, ask, one_row_each, record_of
from tests.untrained import fit_untrained, untrained

OPTIONS = {
    "shortcut": True,
    "map_dropout": 0.3,
    "image_attention": "dot_product",
    "similarity": "category_cosine",
    "match_shares": True,
    "input_dropout": 0.3,
    "products": True,
}


def _signatures(trained, shop, dtype="float32"):
    """The `Signatures` of a `TrainedModel`, before they are in an export."""
    table = None
    if trained.definition.has_images:
        table = encode_images_of(trained, shop.data, shop.store, dtype)
    forms = trained.definition.forms(trained.keras_model)
    items = item_table_of(trained, shop.data)
    return Signatures(trained.definition, forms, table, items)


def _answers(model, inputs):
    """What a model that is trained says of each impression of a batch."""
    return model(inputs, training=False)[..., 0].numpy()[inputs["candidate_mask"]]


@pytest.mark.parametrize(
    ("name", "options"),
    [("hcm", {}), ("hccm", OPTIONS), ("hccm", {"ensemble_size": 2})],
)
def test_every_kind_of_feature_in_training_and_serving(shop, tmp_path, name, options):
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
    trained = untrained(name, schema, shop.store, **options)
    model = trained.keras_model
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    signatures = _signatures(dataclasses.replace(trained, keras_model=loaded), shop)
    inputs, *_ = next(
        iter(Batches(shop.data, schema, ROWS, shop.store).dataset("test"))
    )
    kept = _answers(model, inputs)
    expected = kept / (kept + (1 - kept) / 0.3)
    assert expected.std() > 1e-3
    impressions = Impressions(shop.data, "test", ROWS)
    rows = impressions.rows
    examples = tf.constant(np.array(impressions.examples, object))
    answers = [
        signatures.serving_default(impressions_request(rows, schema, True))["ctr"],
        signatures.serve_examples(examples)["ctr"],
        signatures.regress(examples)["outputs"],
    ]
    for answer in answers:
        np.testing.assert_allclose(answer, expected, atol=1e-5)
    ranked = signatures.rank(rank_request([rows], schema, True))["ctr"]
    plain = signatures.serving_default(one_row_each([rows], schema, True))["ctr"]
    np.testing.assert_allclose(ranked, plain[None], atol=1e-6)
    ranked = signatures.rank_examples([record_of(impressions.examples, schema)])["ctr"]
    np.testing.assert_allclose(ranked, plain[None], atol=1e-6)


def test_an_encoder_without_categories_knows_an_image_in_any(shop):
    images = tf.constant([name for name in shop.items.image if name])
    keys = ids.image_keys(images)
    for name in ("hcm", "hccm"):
        trained = untrained(name, shop.schema, shop.store)
        signatures = _signatures(trained, shop, "float16")
        table = signatures.table
        unknown = table.find(keys, tf.ones_like(keys, tf.int32)).numpy()
        stored = shop.store.find(keys).numpy()
        expected = (stored > 0) if name == "hcm" else np.zeros(len(keys), bool)
        np.testing.assert_array_equal(unknown > 0, expected)
        by_category = "category" in signatures.endpoints()["image_keys"][1]
        assert by_category == (name == "hccm")


def test_the_clicked_images_ids_may_be_a_feature(shop):
    history = Feature("history_image", "sequence", shares="image")
    features = (*shop.schema.features, history)
    schema = dataclasses.replace(shop.schema, features=features)
    trained = untrained("din", schema)
    signatures = _signatures(trained, shop)
    impressions = Impressions(shop.data, "test", ROWS)
    request = impressions_request(impressions.rows, schema, with_images=False)
    found = signatures.serving_default(request)["ctr"]
    examples = tf.constant(np.array(impressions.examples, object))
    expected = signatures.serve_examples(examples)["ctr"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    inputs, *_ = next(iter(Batches(shop.data, schema, ROWS).dataset("test")))
    expected = _answers(trained.keras_model, inputs)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_other_options_than_the_models_are_an_error(fitted):
    estimator = fitted["din"]
    options = DIN.Options(**tiny("din", hidden_units=(8, 8)))
    with pytest.raises(ValueError, match="not the options.*hidden_1"):
        DIN(estimator.schema_, options).forms(estimator.model_)


def test_multi_query_and_histogram_are_served(shop, tmp_path):
    options = {"image_attention": "multi_query", "similarity": "histogram"}
    trained = untrained("hccm", shop.schema, shop.store, **options)
    version = export(trained, shop.data, shop.store, tmp_path)
    signatures = tf.saved_model.load(str(version)).signatures
    impressions = Impressions(shop.data, "test", ROWS)
    examples = np.array(impressions.examples, object)
    found = ask(signatures["serve_examples"], {"examples": examples})
    batches = Batches(shop.data, shop.schema, ROWS, shop.store)
    expected = _answers(trained.keras_model, next(iter(batches.dataset("test")))[0])
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found["ctr"], expected, atol=1e-5)
    rows = impressions.rows
    ranked = ask(signatures["rank"], rank_request([rows], shop.schema, True))
    plain = one_row_each([rows], shop.schema, True)
    expected = ask(signatures["serving_default"], plain)["ctr"]
    np.testing.assert_allclose(ranked["ctr"], expected[None], atol=1e-6)
    request = impressions_request(rows, shop.schema, True)
    assert set(ask(signatures["explain"], request)) == {
        "history_attention",
        "image_attention",
        "image_attention_by_ids",
    }


def test_a_pca_projection_is_fitted_and_served(shop):
    options = {"projection": "pca", "image_embedding_dim": 100}
    options = tiny("din_fixed_cnn", **options)
    estimator = CTREstimator("din_fixed_cnn", shop.maps, **options)
    fit_untrained(estimator, shop.data)
    mean, components = fit_pca(shop.store, 100)
    maps = shop.store.gather(tf.range(1, 9, dtype=tf.int64)).numpy()
    pooled = maps.astype(np.float64).mean(axis=(1, 2)) - shop.store.channel_mean
    expected = (pooled / shop.store.channel_std - mean) @ components.T
    encoder = estimator.model_.get_layer("image_encoder")
    images = {"image_map": maps, "image_category": np.ones(8, np.int32)}
    np.testing.assert_allclose(encoder(images), expected, atol=1e-3)
    assert expected.shape[1] == len(components) < 100
    signatures = _signatures(estimator.fitted_.trained, shop)
    examples = np.array(Impressions(shop.data, "test", ROWS).examples, object)
    found = signatures.serve_examples(examples)["ctr"]
    expected = estimator.predict_proba(shop.data)[:ROWS, 1]
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)
