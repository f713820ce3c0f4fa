import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data.feature import MISSING_INTEGER, Feature
from hccm_tf.data.schema import Schema, read_schema
from hccm_tf.errors import InputError
from tests.reference import fingerprint

BRANDS = ["acme", "zeta", "ärger"]
ITEMS = [-5, 7, 2**40]


@pytest.fixture
def schema():
    return Schema(
        (
            Feature("item_id", "vocabulary", size=3),
            Feature("brand", "vocabulary", "string", size=3, embedding_dim=5),
            Feature("zip", "hash", "string", size=10),
            Feature("code", "hash", "int64", size=10),
            Feature("hour", "integer", size=24),
            Feature("price", "float", "float32", mean=10.0, std=4.0),
            Feature("history_item_id", "sequence", shares="item_id"),
            Feature("history_brand", "sequence", "string", shares="brand"),
        ),
        max_history=3,
        vocabularies={
            "item_id": np.array(ITEMS),
            "brand": np.sort([fingerprint(brand) for brand in BRANDS]),
        },
    )


def test_vocabulary(schema):
    values = tf.constant([7, -5, 2**40, 8, 0, MISSING_INTEGER], tf.int64)
    index = schema.index("item_id", values)
    assert index.dtype == tf.int32
    assert index.numpy().tolist() == [3, 2, 4, 1, 1, 1]
    order = sorted(BRANDS, key=fingerprint)
    index = schema.index("brand", tf.constant([*order, "unknown", ""])).numpy()
    assert index.tolist() == [2, 3, 4, 1, 1]


@pytest.mark.parametrize("name", ["zip", "code"])
def test_hash_spreads_over_its_buckets(schema, name):
    values = tf.range(-500, 500, dtype=tf.int64)
    text = tf.strings.as_string(values)
    index = schema.index(name, text if name == "zip" else values).numpy()
    assert set(index) == set(range(2, 12))
    assert schema.num_rows(name) == 12
    expected = tf.strings.to_hash_bucket_fast(text, 10).numpy() + 2
    np.testing.assert_array_equal(index, expected)


def test_integer(schema):
    values = tf.constant([0, 23, 24, -1, MISSING_INTEGER, 2**62], tf.int64)
    assert schema.index("hour", values).numpy().tolist() == [2, 25, 1, 1, 1, 1]


def test_float(schema):
    values = tf.constant([10.0, 18.0, np.nan, np.inf, -np.inf])
    index = schema.index("price", values)
    assert index.dtype == tf.float32
    assert index.numpy().tolist() == [0, 2, 0, 0, 0]


def test_indices_fit_the_embedding_table(schema):
    values = tf.constant([*ITEMS, 1, MISSING_INTEGER], tf.int64)
    for name in ("item_id", "code", "hour"):
        index = schema.index(name, values).numpy()
        assert 0 < index.min() <= index.max() < schema.num_rows(name)


def test_sequences_share_keep_the_newest_and_pad_with_zero(schema):
    histories = [[7, -5, 2**40, 9, 7], [], [-5]]
    brands = [["acme"] * 5, [], ["nobody"]]
    raw = {
        "item_id": tf.constant([7, 9, -5], tf.int64),
        "brand": tf.constant(["acme", "x", ""]),
        "zip": tf.constant(["1", "2", ""]),
        "code": tf.constant([1, 2, 3], tf.int64),
        "hour": tf.constant([1, 2, 3], tf.int64),
        "price": tf.constant([1.0, 2.0, 3.0]),
        "history_item_id": tf.ragged.constant(histories, dtype=tf.int64),
        "history_brand": tf.ragged.constant(brands, dtype=tf.string),
    }
    inputs = schema.index_all(raw)
    acme = schema.index("brand", tf.constant("acme")).numpy()
    assert inputs["item_id"].numpy().tolist() == [3, 1, 2]
    assert inputs["history_item_id"].numpy().tolist() == [
        [4, 1, 3],
        [0, 0, 0],
        [2, 0, 0],
    ]
    assert inputs["history_brand"].numpy().tolist() == [[acme] * 3, [0] * 3, [1, 0, 0]]
    raw["history_item_id"] = tf.ragged.constant([[], [], []], dtype=tf.int64)
    assert schema.index_all(raw)["history_item_id"].numpy().tolist() == [[0]] * 3


def _candidates(schema):
    """The schema of an item whose brand and price are a candidate's."""
    names = "item_id", "brand", "price"
    features = [
        dataclasses.replace(feature, candidate=feature.name in names)
        for feature in schema.features
    ]
    return dataclasses.replace(schema, features=tuple(features))


def test_ragged_candidates_are_padded(schema):
    schema = _candidates(schema)
    columns = {
        "item_id": [[7, 9, -5], [], [7]],
        "brand": [["acme", "x", ""], [], ["zeta"]],
        "price": [[10.0, 18.0, np.nan], [], [2.0]],
    }
    raw = {
        "zip": tf.constant(["1", "2", ""]),
        "code": tf.constant([1, 2, 3], tf.int64),
        "hour": tf.constant([1, 2, 3], tf.int64),
        "history_item_id": tf.ragged.constant([[7], [], []], dtype=tf.int64),
        "history_brand": tf.ragged.constant([["x"], [], []], dtype=tf.string),
    }
    ragged = {
        name: tf.ragged.constant(values, tf.as_dtype(schema[name].dtype))
        for name, values in columns.items()
    }
    acme, zeta = schema.index("brand", tf.constant(["acme", "zeta"])).numpy()
    for width, padding in ((None, 0), (3, 0), (5, 2)):
        inputs = schema.index_all(raw | ragged, width)
        more = [0] * padding
        expected = {
            "item_id": [[3, 1, 2, *more], [0, 0, 0, *more], [3, 0, 0, *more]],
            "brand": [[acme, 1, 1, *more], [0, 0, 0, *more], [zeta, 0, 0, *more]],
            "price": [[0, 2, 0, *more], [0, 0, 0, *more], [-2, 0, 0, *more]],
        }
        for name, values in expected.items():
            assert inputs[name].numpy().tolist() == values
        assert inputs["hour"].numpy().tolist() == [3, 4, 5]
    # Dense ones, as serving has them, keep their shape.
    dense = {name: value.to_tensor() for name, value in ragged.items()}
    inputs = schema.index_all(raw | dense)
    for name, values in dense.items():
        np.testing.assert_array_equal(inputs[name], schema.index(name, values))


@pytest.mark.parametrize("max_history", [1, 4, 7, 20])
@pytest.mark.parametrize("step", [1, 4])
def test_widths_of_histories_are_multiples(schema, max_history, step):
    schema = dataclasses.replace(schema, max_history=max_history)
    widths = range(1, max_history + 1)
    allowed = {width for width in widths if width % step == 0} | {max_history}
    for longest in range(max_history + 3):
        clicks = [list(range(1, longest + 1)), [], [9]]
        history = tf.ragged.constant(clicks, tf.int64, ragged_rank=1)
        history = schema.truncate(history)
        found = schema.pad_history(history, step).numpy()
        needed = min(max(longest, 1), max_history)
        width = min(width for width in allowed if width >= needed)
        assert found.shape == (3, width)
        for row, values in zip(found.tolist(), clicks, strict=True):
            kept = values[-max_history:]
            assert row == kept + [0] * (width - len(kept))


def test_with_max_history(schema):
    assert schema.with_max_history(1).max_history == 1
    for wrong in (0, 4):
        with pytest.raises(InputError, match="^max_history: 1 to 3, .* Received: "):
            schema.with_max_history(wrong)


def test_save_and_load(schema, tmp_path):
    schema.save(tmp_path)
    loaded = Schema.load(tmp_path)
    assert loaded.features == schema.features
    assert loaded.max_history == schema.max_history
    assert set(loaded.vocabularies) == set(schema.vocabularies)
    for name, keys in schema.vocabularies.items():
        np.testing.assert_array_equal(loaded.vocabularies[name], keys)
    (tmp_path / "vocabularies" / "brand.parquet").unlink()
    with pytest.raises(InputError, match="brand.parquet.*build the examples again"):
        Schema.load(tmp_path)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([{"name": "a", "kind": "words"}], "a.*kind.*words"),
        ([{"name": "a", "kind": "hash"}], "a.*size"),
        ([{"name": "a", "kind": "integer"}], "a.*size"),
        (
            [{"name": "history_b", "kind": "sequence", "shares": "b"}],
            "history_b shares b",
        ),
        (
            [
                {"name": "b", "kind": "vocabulary"},
                {"name": "past", "kind": "sequence", "shares": "b"},
            ],
            "past.*history_b",
        ),
        (2 * [{"name": "b", "kind": "vocabulary"}], "twice: b"),
        ([{"name": "a", "kind": "hash", "buckets": 3}], "schema.json.*buckets"),
        ([{"name": "a"}], "schema.json.*kind"),
    ],
)
def test_errors_of_an_edited_schema(features, message, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"max_history": 5, "features": features}))
    with pytest.raises(InputError, match=message):
        read_schema(path)


def test_the_format_of_a_schema_file(schema, tmp_path):
    path = tmp_path / "schema.json"
    schema.save(tmp_path)
    content = json.loads(path.read_text())
    assert next(iter(content)) == "format" and content["format"] == 2
    # One that a user wrote need not say it, but must not say another.
    del content["format"]
    path.write_text(json.dumps(content))
    assert read_schema(path).features == schema.features
    for other in (1, 3):
        path.write_text(json.dumps({"format": other, **content}))
        message = f"schema.json: format {other}.*build_examples"
        with pytest.raises(InputError, match=message):
            read_schema(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"features": []}'])
def test_errors_of_a_broken_schema_file(text, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(InputError, match="schema.json"):
        read_schema(path)


def test_missing_schema_file(tmp_path):
    with pytest.raises(InputError, match="schema.json: no such file"):
        read_schema(tmp_path / "schema.json")


@pytest.mark.parametrize("max_history", [0, 2**31, 2**63, 5.0, True, None])
def test_impossible_lengths_of_histories(schema, max_history):
    with pytest.raises(InputError, match="max_history: from 1 to 2147483645 clicks"):
        dataclasses.replace(schema, max_history=max_history)
