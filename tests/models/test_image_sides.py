"""Models that see the images of one side only, `cscnn` among them."""

import numpy as np
import pytest

from hccm_tf.models import build_model
from tests.models import pixels
from tests.models.batches import (
    BATCH,
    MASK,
    SCHEMA,
    SHAPE,
    build,
    define,
    inputs_of,
    predict,
    ranker_inputs,
    small,
)
from tests.models.rows import impressions, of_each_candidate

SIDES = [("hccm", "candidate"), ("hccm", "history"), ("cscnn", "candidate")]


def _side_model(name, side):
    """`(model, definition, inputs)`."""
    if name == "cscnn":
        return pixels.build(), pixels.define(), pixels.pixel_inputs()
    options = {"products": True, "similarity": "cosine", "image_sides": side}
    model = build(name, **options)
    inputs = inputs_of(name)
    del inputs["history_image" if side == "candidate" else "candidate_image"]
    return model, define(name, **options), inputs


def test_one_side_is_required_where_there_is_one():
    message = "model cscnn does not read image_sides"
    with pytest.raises(TypeError, match=message):
        pixels.build(image_sides="history")
    with pytest.raises(ValueError, match="image_sides: one of.*left"):
        build_model("hcm", SCHEMA, image_sides="left")
    with pytest.raises(ValueError, match="cnn_attention: one of.*all"):
        build_model("cscnn", SCHEMA, cnn_attention="all")


@pytest.mark.parametrize(
    ("option", "value"),
    [("image_attention", "multi_query"), ("similarity", "histogram")],
)
def test_what_compares_the_candidates_image_needs_it(option, value):
    options = small("hcm", feature_map_shape=SHAPE, **{option: value})
    build_model("hcm", SCHEMA, **options, image_sides="candidate")
    with pytest.raises(ValueError, match=f"{option} {value}.*image_sides history"):
        build_model("hcm", SCHEMA, **options, image_sides="history")


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_a_model_of_one_side_takes_that_side_only(name, side):
    model, _, inputs = _side_model(name, side)
    assert set(model.input) == set(inputs)
    p = model(inputs, training=False).numpy()
    assert p.shape == (*MASK.shape, 1)
    own = "candidate_image" if side == "candidate" else "history_image"
    without = predict(model, {**inputs, own: 0 * inputs[own]})
    changed = np.abs(without - p[MASK][:, 0]) > 1e-6
    has_images = (impressions(inputs)[own].reshape(BATCH, -1) != 0).any(axis=1)
    assert not has_images.all()
    np.testing.assert_array_equal(changed, has_images)


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_forms_of_a_model_of_one_side(name, side):
    model, definition, inputs = _side_model(name, side)
    assert definition.sides == (side,)
    expected = predict(model, inputs)
    inputs = impressions(ranker_inputs(model, inputs))
    forms = definition.forms(model)
    ranker = forms["ranker"]
    np.testing.assert_allclose(predict(ranker, inputs), expected, atol=1e-5)
    users = [1, 4, 9]
    requests, rows_of_users = of_each_candidate(inputs, users)
    found = forms["rank"](requests, training=False).numpy()[..., 0]
    for row, (user, rows) in enumerate(zip(users, rows_of_users, strict=True)):
        np.testing.assert_allclose(found[row], predict(ranker, rows), atol=1e-5)
        assert found[row, user] == pytest.approx(expected[user], abs=1e-5)
    weights = forms["explain"](inputs, training=False)
    names = ["history_attention"] + ["image_attention"] * (side == "history")
    assert sorted(weights) == names
    if side == "history":
        there = inputs["history_image"] != 0
        attended = weights["image_attention"].numpy()
        assert (attended[~there] == 0).all() and (attended[there] != 0).all()


def test_the_query_of_the_history_is_the_candidates():
    model, definition, inputs = _side_model("hccm", "history")
    options = definition.options
    inputs = ranker_inputs(model, inputs)
    ranker = model.get_layer("ranker")
    query = ranker.get_layer("image_query")
    assert query.kernel.shape == (
        2 * options.embedding_dim,
        options.image_embedding_dim,
    )
    before = predict(ranker, inputs)
    query.kernel.assign(query.kernel * -2)
    changed = np.abs(predict(ranker, inputs) - before) > 1e-6
    has_images = impressions(inputs)["history_image"].any(axis=1)
    np.testing.assert_array_equal(changed, has_images)
