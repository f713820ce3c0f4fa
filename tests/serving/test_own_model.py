"""A model of a user's own, from training to its signatures."""

import numpy as np
import pytest
import tensorflow as tf

from hccm_tf import CTREstimator, load_run
from hccm_tf.serving.export import item_table_of
from hccm_tf.serving.request import Impressions, impressions_request, rank_request
from hccm_tf.serving.signatures import Signatures
from tests.conftest import tiny
from tests.models.own_model import MyModel
from tests.serving.asking import ALL, ROWS, ask, one_row_each
from tests.untrained import fit_untrained, untrained

MINE = "tests.models.own_model:MyModel"
LINEAR = "tests.models.own_model:Linear"


@pytest.fixture(scope="module")
def loaded(shop, tmp_path_factory):
    """An estimator of `MyModel` as a run leaves it, before its first step."""
    run_dir = tmp_path_factory.mktemp("own") / "run"
    estimator = CTREstimator(MINE, shop.maps, **tiny(MINE, depth=2))
    fit_untrained(estimator, shop.data).save(run_dir)
    again = load_run(run_dir)
    np.testing.assert_array_equal(
        again.predict_proba(shop.data), estimator.predict_proba(shop.data)
    )
    return again


def test_a_run_finds_the_model_again(loaded):
    definition = loaded.fitted_.trained.definition
    assert type(definition) is MyModel and definition.options.depth == 2
    assert loaded.get_params()["model"] == MINE and loaded.get_params()["depth"] == 2
    assert loaded.model_.get_layer("image_encoder").get_layer("linear_1")


def test_an_export_answers_like_the_estimator(loaded, shop, tmp_path):
    signatures = tf.saved_model.load(str(loaded.export(tmp_path))).signatures
    assert set(signatures) == ALL
    impressions = Impressions(shop.data, "test", ROWS)
    expected = loaded.predict_proba(shop.data)[:ROWS, 1]
    assert expected.std() > 1e-4
    examples = np.array(impressions.examples, object)
    found = ask(signatures["serve_examples"], {"examples": examples})["ctr"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    rows = impressions.rows
    ranked = ask(signatures["rank"], rank_request([rows], shop.schema, True))["ctr"]
    plain = one_row_each([rows], shop.schema, True)
    expected = ask(signatures["serving_default"], plain)["ctr"]
    np.testing.assert_allclose(ranked, expected[None], atol=1e-6)


def test_signatures_of_a_model_without_attention_and_images(shop):
    trained = untrained(LINEAR, shop.schema, temperature=2.0)
    forms = trained.definition.forms(trained.keras_model)
    items = item_table_of(trained, shop.data)
    signatures = Signatures(trained.definition, forms, items=items)
    names = ALL - {"explain", "encode_images", "image_keys"}
    assert set(signatures.endpoints()) == names
    rows = Impressions(shop.data, "test", ROWS).rows
    ranked = signatures.rank(rank_request([rows], shop.schema, False))["ctr"]
    plain = one_row_each([rows], shop.schema, False)
    expected = signatures.serving_default(plain)["ctr"]
    assert np.std(expected) > 1e-4
    np.testing.assert_allclose(ranked, expected[None], atol=1e-6)
    request = impressions_request(rows, shop.schema, False)
    assert np.isfinite(signatures.serving_default(request)["ctr"]).all()
