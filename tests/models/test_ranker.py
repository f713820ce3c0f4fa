"""The ranker's other forms: many candidates, and the attentions' weights."""

import keras
import numpy as np
import pytest

from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.models import build_model
from tests.models.batches import (
    ATTENTIONS,
    IMAGE_MODELS,
    MASK,
    MODELS,
    SHAPE,
    build,
    define,
    inputs_of,
    predict,
    ranker_inputs,
    read_by,
    small,
)
from tests.models.rows import impressions, of_each_candidate


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_ranking_candidates_equals_one_row_each(name, attention):
    options = read_by(name, {**ATTENTIONS[attention], "products": True})
    model = build(name, **options)
    forms = define(name, **options).forms(model)
    rank, ranker = forms["rank"], forms["ranker"]
    assert rank is (model.get_layer("ranker") if name in IMAGE_MODELS else model)
    inputs = inputs_of(name)
    trained = predict(model, inputs)
    inputs = impressions(ranker_inputs(model, inputs))
    np.testing.assert_allclose(predict(ranker, inputs), trained, atol=1e-5)
    requests, rows_of_users = of_each_candidate(inputs, users=[1, 5, 8])
    found = rank(requests, training=False).numpy()[..., 0]
    for row, rows in enumerate(rows_of_users):
        np.testing.assert_allclose(found[row], predict(ranker, rows), atol=1e-5)
    assert found.std() > 1e-4
    assert {id(w) for w in ranker.weights} == {id(w) for w in rank.weights}
    assert {id(w) for w in rank.weights} <= {id(w) for w in model.weights}


@pytest.mark.parametrize("image_attention", ["din", "dot_product"])
@pytest.mark.parametrize("name", ["din", "hccm"])
def test_explanations_are_the_weights_of_the_attentions(name, image_attention):
    options = read_by(name, {"image_attention": image_attention})
    model = build(name, **options)
    explain = define(name, **options).forms(model)["explain"]
    inputs = impressions(ranker_inputs(model, inputs_of(name)))
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
    options = {"image_attention": "multi_query"}
    model = build("hccm", **options)
    explain = define("hccm", **options).forms(model)["explain"]
    requests = ranker_inputs(model, inputs_of("hccm"))
    inputs = impressions(requests)
    weights = explain(inputs, training=False)
    assert set(weights) == {
        "history_attention",
        "image_attention",
        "image_attention_by_ids",
    }
    ranker = model.get_layer("ranker")
    attention = keras.Model(ranker.input, ranker.get_layer("image_attention").output)
    expected = attention(requests, training=False).numpy()[MASK]
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


def test_the_ids_ask_for_other_images():
    """A candidate's price does not turn its second query, its category does."""
    model = build("hcm", image_attention="multi_query")
    ranker = model.get_layer("ranker")
    attention = keras.Model(ranker.input, ranker.get_layer("image_attention").output)
    inputs = ranker_inputs(model, inputs_of("hcm"))
    before = np.split(attention(inputs, training=False).numpy()[MASK], 2, axis=-1)
    for name, turns in (("price", False), ("category", True), ("item_id", True)):
        other = {**inputs, name: inputs[name][::-1]}
        after = attention(other, training=False).numpy()[MASK]
        image, ids = np.split(after, 2, axis=-1)
        np.testing.assert_allclose(image, before[0], atol=1e-6)
        assert (np.abs(ids - before[1]).max() > 1e-3) == turns


def test_multi_query_needs_an_id_of_the_candidate():
    schema = Schema((Feature("price", "float", candidate=True),))
    options = small("hcm", image_attention="multi_query")
    with pytest.raises(ValueError, match="multi_query.*Received: none"):
        build_model("hcm", schema, feature_map_shape=SHAPE, **options)
