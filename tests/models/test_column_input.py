"""Columns that are called as something else in a graph is."""

import dataclasses
import re

import keras
import numpy as np
import pytest

from hccm_tf.data.column_names import OWN_INPUTS
from hccm_tf.data.feature import Feature
from tests.models.batches import SCHEMA, build, define, inputs_of, predict
from tests.models.rows import impressions


def _names(model):
    """Names of all layers and operations of a model and of the models in it."""
    for operation in model.operations:
        yield operation.name
        if isinstance(operation, keras.Model):
            yield from _names(operation)


@pytest.mark.parametrize("name", ["base", "late_fusion"])
def test_columns_of_the_names_that_a_graph_has(name):
    """Layers, operations, inputs and the model itself: of each a column."""
    model = define(name, dropout=0.5).build()
    taken = {re.sub(r"\W", "_", each) for each in _names(model)}
    taken |= {name, *OWN_INPUTS, *model.input, "image", "length", "representation"}
    taken -= {feature.name for feature in SCHEMA.features}
    taken = sorted(each for each in taken if not each.startswith("history_"))
    columns = [
        Feature(n, "integer", size=3, frequency=2.0, candidate=bool(place % 2))
        for place, n in enumerate(taken)
    ]
    shared = ["image", "length", "representation", "candidate_mask"]
    columns += [Feature(f"history_{n}", "sequence", shares=n) for n in shared]
    features = (*SCHEMA.features, *columns)
    schema = dataclasses.replace(SCHEMA, features=features)
    definition = define(name, schema, dropout=0.5)
    model = definition.build()
    forms = definition.forms(model)
    inputs = {feature.input_name for feature in features}
    assert len(inputs) == len(features)
    for graph in (model, forms["ranker"]):
        assert inputs <= set(graph.input)
        # What is not of a column is known not to be one's.
        assert set(graph.input) - inputs <= OWN_INPUTS


def test_a_model_with_inputs_that_are_called_as_columns(monkeypatch, tmp_path):
    """Runs of before have such; everything else has kept its name."""

    def plain(feature, shape):
        return keras.Input(shape, dtype=feature.input_dtype, name=feature.name)

    with monkeypatch.context() as patch:
        patch.setattr("hccm_tf.models.non_visual.column_input", plain)
        old = build("din")
    assert old.get_layer("user_id")
    old.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = inputs_of("din")
    expected = predict(old, inputs)
    np.testing.assert_allclose(predict(loaded, inputs), expected, atol=1e-6)
    ranker = define("din").forms(loaded)["ranker"]
    np.testing.assert_allclose(
        predict(ranker, impressions(inputs)), expected, atol=1e-6
    )
