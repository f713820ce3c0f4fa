import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data.feature import MISSING_INTEGER, Feature
from hccm_tf.data.feature_kinds import KINDS
from hccm_tf.data.ids import NO_IMAGE

FEATURES = {
    "vocabulary": Feature("a", "vocabulary", size=2),
    "hash": Feature("a", "hash", size=7),
    "integer": Feature("a", "integer", size=7),
    "float": Feature("a", "float", "float32"),
    "sequence": Feature("history_a", "sequence", shares="a"),
}


def _those(name):
    return {kind for kind, feature in FEATURES.items() if getattr(feature, name)}


def test_what_a_feature_is():
    assert set(FEATURES) == set(KINDS)
    assert _those("is_embedded") == {"vocabulary", "hash", "integer"}
    assert _those("is_sequence") == {"sequence"}
    assert _those("is_float") == {"float"}
    assert _those("has_vocabulary") == {"vocabulary"}
    assert _those("has_unknown_row") == {"vocabulary", "integer"}
    assert _those("is_counted") == {"vocabulary", "integer"}
    assert _those("needs_size") == {"hash", "integer"}
    assert _those("odd") == {"vocabulary", "integer", "float"}


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_and_rows(kind):
    feature = FEATURES[kind]
    assert feature.input_dtype == ("float32" if kind == "float" else "int32")
    if feature.is_embedded:
        assert feature.num_rows == feature.size + 2
    if kind == "sequence":
        with pytest.raises(TypeError, match="history_a.*index of a"):
            feature.index(tf.constant([1], tf.int64))
        return
    values = np.array([1, 5], feature.dtype)
    index = feature.index(tf.constant(values), np.array([1, 5]))
    assert index.dtype == feature.input_dtype


def test_index_one_occurs_where_there_is_an_unknown_row():
    values = tf.constant([*range(-50, 50), MISSING_INTEGER], tf.int64)
    for kind in ("vocabulary", "hash", "integer"):
        index = FEATURES[kind].index(values, np.array([1, 5])).numpy()
        assert (1 in index) == FEATURES[kind].has_unknown_row
        assert 0 not in index


def test_missing():
    assert FEATURES["vocabulary"].missing == MISSING_INTEGER
    assert Feature("a", "vocabulary", "string", size=2).missing == ""
    assert np.isnan(FEATURES["float"].missing)
    assert Feature("image", "vocabulary", size=2).missing == NO_IMAGE


@pytest.mark.parametrize(
    ("kind", "dtype", "columns"),
    [
        ("vocabulary", "int64", {"int64"}),
        ("vocabulary", "string", {"string"}),
        ("hash", "string", {"string"}),
        ("hash", "float32", set()),
        ("integer", "int64", {"int64"}),
        ("float", "float32", {"float32", "int64"}),
    ],
)
def test_fits(kind, dtype, columns):
    feature = Feature("a", kind, dtype, size=3)
    assert columns == {c for c in ("int64", "string", "float32") if feature.fits(c)}


def test_odd_values():
    values = tf.constant([1, 9, MISSING_INTEGER, 3], tf.int64)
    odd = FEATURES["vocabulary"].is_odd(values, np.array([1, 5]))
    assert odd.numpy().tolist() == [False, True, False, True]
    odd = FEATURES["integer"].is_odd(values)
    assert odd.numpy().tolist() == [False, True, True, False]
    odd = FEATURES["float"].is_odd(tf.constant([1.0, np.nan, np.inf]))
    assert odd.numpy().tolist() == [False, True, True]


def test_counts_of_values():
    assert Feature("a", "vocabulary", size=0).size == 0
    for size in (-1, 2.0, True, "3"):
        with pytest.raises(ValueError, match="size is a number of values"):
            Feature("a", "vocabulary", size=size)
