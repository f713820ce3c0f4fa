"""What the final MLP sees of how a candidate matches the history."""

import keras
import numpy as np
import pytest

from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.models import build_model
from tests.models.batches import (
    IMAGE_MODELS,
    MASK,
    SHAPE,
    build,
    encode,
    inputs_of,
    ranker_inputs,
    small,
)


def similarities_of(ranker, inputs):
    """What the ranker normalizes and shows its MLP past all dropout, `[B, ·]`."""
    normalization = ranker.get_layer("similarity_normalization")
    # The other is the mask.
    similarities = keras.Model(ranker.input, normalization.input[0])
    return similarities(inputs).numpy()[MASK]


def seen_of_candidates(model, inputs, training=False):
    """What the first layer of the final MLP gets of each candidate, `[B, N, ·]`."""
    candidate, _ = model.get_layer("hidden_0").input
    return keras.Model(model.input, candidate)(inputs, training=training).numpy()


def test_shares_equal_numpy():
    model = build("base", match_shares=True)
    inputs = inputs_of("base")
    inputs["history_item_id"][1, :2] = inputs["item_id"][1, 0] = 5
    # As they are, after the candidate's own features.
    found = seen_of_candidates(model, inputs)[MASK][:, -2:]
    places = np.argwhere(MASK)
    for column, name in enumerate(("item_id", "category")):
        clicks, shown = inputs[f"history_{name}"], inputs[name]
        for row, (request, candidate) in enumerate(places):
            there = clicks[request][clicks[request] != 0]
            value = shown[request, candidate]
            # Two unknown values are not the same one.
            same = np.sum((there == value) & (there != 1))
            expected = same / len(there) if len(there) else 0
            np.testing.assert_allclose(found[row, column], expected, atol=1e-6)
    assert (found > 0).any(axis=0).all() and (found == 0).any(axis=0).all()


def test_no_history_has_no_shares():
    schema = Schema((Feature("a", "integer", size=3, candidate=True),))
    widths = [
        build_model("din", schema, match_shares=shares, **small("din"))
        .get_layer("hidden_0")
        .kernel.shape
        for shares in (False, True)
    ]
    assert widths[0] == widths[1]


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_cosines_within_the_category_equal_numpy(name):
    model = build(name, similarity="category_cosine")
    inputs = inputs_of(name)
    found = similarities_of(model.get_layer("ranker"), ranker_inputs(model, inputs))
    vectors = encode(model, inputs["image_map"], inputs["image_category"])
    vectors = vectors.astype("float64")
    for row, (request, candidate) in enumerate(np.argwhere(MASK)):
        images = inputs["history_image"][request]
        category = inputs["category"][request, candidate]
        clicked = inputs["history_category"][request]
        shown = inputs["candidate_image"][request, candidate]
        same = (images != 0) & (clicked == category) & (clicked > 1)
        expected = [
            summary(vectors[shown], vectors[images[mask]])
            for mask in (images != 0, same)
        ]
        expected = np.concatenate(expected) * (shown != 0)
        np.testing.assert_allclose(found[row], expected, atol=1e-4)
    assert (np.abs(found[:, 3:]).max(axis=1) > 0).any()


def summary(query, keys, sharpness=10):
    """Mean, maximum and soft maximum of the cosines, 0 without any."""
    if not len(keys):
        return np.zeros(3)
    norms = np.linalg.norm(keys, axis=1) * np.linalg.norm(query)
    cosines = keys @ query / np.where(norms > 0, norms, 1)
    soft = np.log(np.mean(np.exp(sharpness * cosines))) / sharpness
    return np.array([cosines.mean(), cosines.max(), soft])


def test_what_a_schema_lacks_is_named():
    schema = Schema((Feature("item_id", "integer", size=3, candidate=True),))
    options = small("hcm", similarity="category_cosine")
    with pytest.raises(ValueError, match="category_cosine needs category and"):
        build_model("hcm", schema, feature_map_shape=SHAPE, **options)


def test_dropout_leaves_the_similarities():
    """All else is hidden, shares included."""
    options = {"similarity": "cosine", "match_shares": True}
    model = build("hcm", input_dropout=0.999, **options)
    inputs = ranker_inputs(model, inputs_of("hcm"))
    candidate = seen_of_candidates(model.get_layer("ranker"), inputs, training=True)
    assert np.abs(candidate[..., :-3]).max() == 0
    assert candidate[..., -3:].std() > 0.1
