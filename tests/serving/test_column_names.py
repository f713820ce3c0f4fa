"""Columns of all names, from one table's header to an export's answers."""

import dataclasses
import json

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from hccm_tf.data.column_names import input_name
from hccm_tf.data.dataset import Batches
from hccm_tf.data.feature import Feature
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.item_features import carried
from hccm_tf.data.schema import Schema
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.validation.validate import validate
from hccm_tf.serving.ask import main
from hccm_tf.serving.export import export
from hccm_tf.serving.inputs import request_name
from hccm_tf.serving.request import (
    Impressions,
    impressions_request,
    rank_request,
    to_json,
)
from tests.serving.asking import ask
from tests.serving.test_c_api import signature_defs, warmup_requests
from tests.untrained import untrained

# Of layers, operations, inputs and outputs, and those that TensorFlow does not carry.
NAMES = [
    *("ctr", "item_image", "item_representation", "hidden_0", "ranker", "Price"),
    *("image_attention", "user_id_embedding", "concatenate", "length"),
    *("candidate_mask", "candidate_image", "image_map", "image_category", "class"),
    *("self", "ad position", "ad-position", "geo.country", "1st", "größe", "x:y"),
    *("$x", "Unnamed: 0", "__x", "x'y", "timestamp ", "..", "%s.json"),
]
OF_LOG, OF_ITEMS = NAMES[::2], NAMES[1::2]
OF_CANDIDATES = OF_LOG[::3]
OF_CLICKS = ["item_id", "category", "image", "length", "candidate_mask", "ad-position"]
ROWS = 40


def _schema():
    scalars = ["user_id", "item_id", "category", "image", *OF_LOG, *OF_ITEMS]
    features = [Feature(name, "vocabulary") for name in scalars]
    features += [Feature(f"history_{n}", "sequence", shares=n) for n in OF_CLICKS]
    return Schema(tuple(features))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with such columns, and histories of some of them."""
    rng = np.random.default_rng(0)
    items = {"item_id": np.arange(8), "image": list("abcdefgh")}
    items |= {"category": np.arange(8) % 3}
    items |= {name: rng.integers(0, 4, 8) for name in OF_ITEMS}
    time = np.arange(ROWS) // 2
    log = {"timestamp": time, "user_id": time % 3, "label": np.arange(ROWS) % 2}
    log |= {"item_id": rng.integers(0, 8, ROWS)}
    for name in OF_LOG:
        values = rng.integers(0, 4, ROWS)
        log[name] = values if name in OF_CANDIDATES else values[time]
    path = tmp_path_factory.mktemp("names") / "data"
    build_examples(pd.DataFrame(items), pd.DataFrame(log), path, schema=_schema())
    return path


@pytest.fixture(scope="module")
def trained(data):
    """`din` with new weights."""
    return untrained("din", DataFolder(data).schema())


@pytest.fixture(scope="module")
def version(data, trained, tmp_path_factory):
    return export(trained, data, None, tmp_path_factory.mktemp("names") / "export")


@pytest.fixture(scope="module")
def loaded(version):
    """Name → signature."""
    return tf.saved_model.load(str(version)).signatures


def _test_batch(data, schema):
    return next(iter(Batches(data, schema, ROWS).dataset("test")))[0]


def test_records_have_the_columns_names(data):
    assert validate(data)[1] == []
    dataset = tfds.builder_from_directory(data).as_dataset(split="train")
    assert {*OF_LOG, *OF_ITEMS} <= set(dataset.element_spec)
    assert sum(1 for _ in dataset) == ROWS * 0.8 / 2
    schema = DataFolder(data).schema(with_vocabularies=False)
    for name in OF_LOG:
        assert schema[name].candidate == (name in OF_CANDIDATES)


def test_a_model_is_that_of_other_names(data, trained, tmp_path):
    """The graph has no place where a name counts."""
    schema, model = trained.schema, trained.keras_model
    other = {f.name: f"c{place}" for place, f in enumerate(schema.scalars)}
    other |= {f.name: f"history_{other[f.shares]}" for f in schema.sequences}
    features = [
        dataclasses.replace(f, name=other[f.name], shares=f.shares and other[f.shares])
        for f in schema.features
    ]
    counts = {other[name]: count for name, count in schema.counts.items()}
    plain = untrained("din", Schema(tuple(features), counts=counts)).keras_model
    plain.set_weights(model.get_weights())
    inputs = _test_batch(data, schema)
    mask = inputs["candidate_mask"]
    inputs_of_plain = {other[f.name]: inputs[f.input_name] for f in schema.features} | {
        "candidate_mask": mask
    }
    expected = plain(inputs_of_plain, training=False).numpy()
    assert expected.std() > 1e-4
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for found in (model, loaded):
        np.testing.assert_allclose(found(inputs, training=False), expected, atol=1e-6)


def test_requests_name_inputs_that_the_signatures_have(trained, version, loaded):
    definitions = signature_defs(version)
    inputs = {request_name(f.name) for f in carried(trained.schema).features}
    inputs.add("history_length")
    assert {input_name(name) for name in OF_LOG} <= inputs
    assert set(definitions["encode_items"].inputs) == {
        input_name(name) for name in ["item_id", "category", *OF_ITEMS]
    }
    assert set(definitions["serving_default"].inputs) == inputs
    assert set(definitions["rank"].inputs) == inputs | {"candidate_mask"}
    requests = warmup_requests(version)
    assert {name for name, _ in requests} == set(loaded)
    for name, request in requests:
        assert set(request) == set(definitions[name].inputs)
        assert set(request) == set(loaded[name].structured_input_signature[1])


def test_all_signatures_answer_as_the_model(data, trained, loaded):
    inputs = _test_batch(data, trained.schema)
    mask = inputs["candidate_mask"].numpy()
    expected = trained.keras_model(inputs, training=False).numpy()[..., 0]
    assert expected.std() > 1e-4
    found = Impressions(data, "test", mask.sum())
    examples = ask(loaded["rank_examples"], {"examples": found.records})["ctr"]
    np.testing.assert_allclose(examples[mask], expected[mask], atol=1e-6)
    request = rank_request(found.requests, trained.schema, False)
    ranked = ask(loaded["rank"], request)["ctr"]
    np.testing.assert_allclose(ranked[mask], expected[mask], atol=1e-6)


def test_the_first_request_of_a_run(data, trained, version, tmp_path, capsys):
    rows = Impressions(data, "test", 2).rows
    request = impressions_request(rows, trained.schema, False)
    path = tmp_path / "request.json"
    path.write_text(json.dumps(to_json("serving_default", request)))
    main(str(version), path)
    assert capsys.readouterr().out.startswith("ctr = [0.")
