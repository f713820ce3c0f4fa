import keras
import numpy as np
import pytest

from hccm_tf.layers import SimilarityHistogram
from tests.layers.run_layer_test import randomize_weights, run_layer_test, to_numpy

RNG = np.random.default_rng(0)
QUERY = RNG.standard_normal((4, 3, 6)).astype("float32")
KEYS = RNG.standard_normal((4, 30, 6)).astype("float32")
MASK = RNG.random((4, 30)) < 0.6
MASK[1] = False
MASK[2] = True


def random_layer(**kwargs):
    layer = SimilarityHistogram(**kwargs)
    layer(QUERY, KEYS)
    randomize_weights(layer)
    return layer


def reference(layer, query, keys, mask):
    """Features of one query and one history."""
    (table,) = layer.get_weights()
    norms = np.linalg.norm(keys[mask], axis=-1) * np.linalg.norm(query)
    cosines = keys[mask] @ query / np.where(norms == 0, 1, norms)
    counts, _ = np.histogram(cosines, bins=len(table), range=(-1, 1))
    return np.concatenate(
        [np.log(n + 1) * row for n, row in zip(counts, table, strict=True)]
    )


def middle_of_bins():
    """Candidates and clicks whose cosines half precision leaves in their bins."""
    rng = np.random.default_rng(1)
    cosines = rng.choice([-0.55, -0.35, -0.15, 0.05, 0.25, 0.45], (4, 7, 3))
    rest = np.sqrt(1 - np.sum(cosines**2, axis=-1, keepdims=True))
    keys = np.concatenate([cosines, rest], axis=-1) * rng.uniform(0.5, 2, (4, 7, 1))
    query = np.broadcast_to(np.eye(4)[:3] * [[1], [3], [0.5]], (4, 3, 4))
    return query.astype("float32"), keys.astype("float32")


@pytest.mark.parametrize("with_mask", [False, True], ids=["plain", "mask"])
@pytest.mark.parametrize("rank", [2, 3])
def test_layer(rank, with_mask):
    query, keys = middle_of_bins()
    inputs = {"query": query if rank == 3 else query[:, 0], "keys": keys}
    if with_mask:
        inputs["keys_mask"] = MASK[:, :7]
    run_layer_test(
        SimilarityHistogram,
        {"num_bins": 10, "embedding_dim": 3},
        inputs,
        expected_num_trainable_weights=1,
        num_dynamic_dims={"query": rank - 1, "keys": 2, "keys_mask": 2},
    )


@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "mask"])
@pytest.mark.parametrize("arguments", [{}, {"num_bins": 7, "embedding_dim": 1}])
def test_equals_numpy(mask, arguments):
    layer = random_layer(**arguments)
    full = np.ones_like(MASK) if mask is None else mask
    expected = np.array(
        [
            [reference(layer, q, k, m) for q in qs]
            for qs, k, m in zip(QUERY, KEYS, full, strict=True)
        ]
    )
    assert len(np.unique(expected)) > 20
    outputs = to_numpy(layer(QUERY, KEYS, keys_mask=mask))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    outputs = to_numpy(layer(QUERY[:, 1], KEYS, keys_mask=mask))
    np.testing.assert_allclose(outputs, expected[:, 1], rtol=1e-5, atol=1e-6)


def test_edges_and_rounding():
    """Cosines of 1 and -1, also where rounding goes beyond; a zero vector has 0."""
    layer = random_layer(embedding_dim=1)
    (table,) = layer.get_weights()
    vectors = RNG.standard_normal((500, 1, 9)).astype("float32")
    for factor, place in ((3.0, 19), (-0.1, 0), (0.0, 10)):
        outputs = to_numpy(layer(vectors[:, 0], factor * vectors))
        expected = np.zeros(20)
        expected[place] = np.log(2) * table[place, 0]
        np.testing.assert_allclose(outputs, np.tile(expected, (500, 1)), rtol=1e-5)


def test_masked_positions_leave_no_trace():
    garbage = KEYS.copy()
    garbage[~MASK] = 1e4
    layer = random_layer()
    outputs = to_numpy(layer(QUERY, KEYS, keys_mask=MASK))
    np.testing.assert_array_equal(
        outputs, to_numpy(layer(QUERY, garbage, keys_mask=MASK))
    )
    assert (outputs[1] == 0).all() and (outputs[[0, 2, 3]] != 0).any()


def test_gradients_reach_the_vectors_of_bins_only():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's tape")
    import tensorflow as tf

    layer = random_layer(embedding_dim=1)
    query, keys = tf.constant(QUERY), tf.constant(KEYS)
    with tf.GradientTape() as tape:
        tape.watch([query, keys])
        total = tf.reduce_sum(layer(query, keys, keys_mask=MASK))
    gradients = tape.gradient(total, [query, keys, layer.vectors.value])
    assert gradients[:2] == [None, None]
    counts = to_numpy(layer(QUERY, KEYS, keys_mask=MASK)).sum(axis=(0, 1))
    np.testing.assert_allclose(
        gradients[2][:, 0] * layer.vectors[:, 0], counts, rtol=1e-4, atol=1e-5
    )


def test_defaults():
    layer = SimilarityHistogram()
    layer.build((None, 6), (None, None, 6))
    (table,) = layer.get_weights()
    assert table.shape == (20, 4)
    assert 0 <= table.min() < 0.2 and 0.8 < table.max() <= 1


@pytest.mark.parametrize("name", ["num_bins", "embedding_dim"])
def test_sizes_are_positive(name):
    with pytest.raises(ValueError, match=f"Received: {name}=0"):
        SimilarityHistogram(**{name: 0})


def test_receives_the_implicit_mask_of_keys():
    ids = RNG.integers(1, 9, MASK.shape) * MASK
    embedding = keras.layers.Embedding(9, QUERY.shape[-1], mask_zero=True)
    layer = random_layer()
    implicit = layer(QUERY, embedding(ids))
    explicit = layer(QUERY, to_numpy(embedding(ids)), keys_mask=MASK)
    np.testing.assert_array_equal(to_numpy(implicit), to_numpy(explicit))
