"""Models of a user's own, found by where they stand."""

import numpy as np
import pytest

from hccm_tf.models import build_model, find_model, name_of
from tests.models import own_model
from tests.models.batches import (
    SCHEMA,
    SHAPE,
    build,
    define,
    inputs_of,
    predict,
    ranker_inputs,
)
from tests.models.rows import impressions, of_each_candidate

MINE = "tests.models.own_model:MyModel"
LINEAR = "tests.models.own_model:Linear"


def test_they_are_found_by_name():
    for name, model in ((MINE, own_model.MyModel), (LINEAR, own_model.Linear)):
        assert find_model(name) is model
        assert name_of(model) == name
    assert find_model("tests.models.own_model:Holder.Inner") is own_model.Holder.Inner
    assert name_of(own_model.Holder.Inner) == "tests.models.own_model:Holder.Inner"


def test_a_name_that_a_model_of_the_package_has_is_not_confused_with_it():
    assert own_model.Holder.Inner.name == "din"
    assert name_of(own_model.Holder.Inner) != "din"
    assert find_model("din") is not own_model.Holder.Inner


def test_their_own_options_are_read():
    for depth in (1, 3):
        model = build(MINE, depth=depth)
        names = {layer.name for layer in model.get_layer("image_encoder").layers}
        linear = {name for name in names if name.startswith("linear_")}
        assert linear == {f"linear_{place}" for place in range(depth)}
    inputs = inputs_of(LINEAR)
    logits = []
    for temperature in (1.0, 2.0):
        p = predict(build(LINEAR, temperature=temperature), inputs)
        logits.append(np.log(p / (1 - p)))
    np.testing.assert_allclose(logits[0], 2 * logits[1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="^depth: an integer from 1 on. Received: 0$"):
        build(MINE, depth=0)
    message = f"^model {MINE} does not read cnn_filters. It reads: .*, depth$"
    with pytest.raises(TypeError, match=message):
        build_model(MINE, SCHEMA, feature_map_shape=SHAPE, cnn_filters=(5, 7))


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        (MINE, {"ranker", "rank", "explain", "encode_images"}),
        (LINEAR, {"ranker", "rank"}),
    ],
)
def test_their_forms_have_the_models_weights(name, forms):
    model = build(name)
    found = define(name).forms(model)
    assert set(found) == forms
    inputs = impressions(ranker_inputs(model, inputs_of(name)))
    requests, rows_of_users = of_each_candidate(inputs, users=[1, 5])
    ranked = found["rank"](requests, training=False).numpy()[..., 0]
    assert ranked.std() > 1e-4
    for row, rows in enumerate(rows_of_users):
        expected = predict(found["ranker"], rows)
        np.testing.assert_allclose(ranked[row], expected, atol=1e-5)
