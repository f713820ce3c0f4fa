import keras
import numpy as np
import pytest

from hccm_tf.layers import CosineSimilarity
from tests.layers.run_layer_test import run_layer_test, to_numpy

RNG = np.random.default_rng(0)
QUERY = RNG.standard_normal((4, 3, 6)).astype("float32")
KEYS = RNG.standard_normal((4, 7, 6)).astype("float32")
MASK = RNG.random((4, 7)) < 0.6
MASK[1] = False
MASK[2] = True


def reference(query, keys, mask, sharpness):
    """Features of one query and one history."""
    if not mask.any():
        return np.zeros(3)
    norms = np.linalg.norm(keys[mask], axis=-1) * np.linalg.norm(query)
    cosines = keys[mask] @ query / np.where(norms == 0, 1, norms)
    soft = np.log(np.mean(np.exp(sharpness * cosines))) / sharpness
    return np.array([cosines.mean(), cosines.max(), soft])


@pytest.mark.parametrize("inputs", [{}, {"keys_mask": MASK}], ids=["plain", "mask"])
@pytest.mark.parametrize("query", [QUERY, QUERY[:, 0]], ids=["BND", "BD"])
def test_layer(query, inputs):
    run_layer_test(
        CosineSimilarity,
        {"sharpness": 5.0},
        {"query": query, "keys": KEYS, **inputs},
        expected_num_trainable_weights=0,
        num_dynamic_dims={"query": query.ndim - 1, "keys": 2, "keys_mask": 2},
    )


@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "mask"])
@pytest.mark.parametrize("sharpness", [2.0, 10.0])
def test_equals_numpy(mask, sharpness):
    layer = CosineSimilarity(sharpness=sharpness)
    full = np.ones_like(MASK) if mask is None else mask
    expected = np.array(
        [
            [reference(q, k, m, sharpness) for q in qs]
            for qs, k, m in zip(QUERY, KEYS, full, strict=True)
        ]
    )
    outputs = to_numpy(layer(QUERY, KEYS, keys_mask=mask))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    outputs = to_numpy(layer(QUERY[:, 1], KEYS, keys_mask=mask))
    np.testing.assert_allclose(outputs, expected[:, 1], rtol=1e-5, atol=1e-5)


def test_masked_positions_leave_no_trace():
    garbage = KEYS.copy()
    garbage[~MASK] = 1e4
    layer = CosineSimilarity()
    np.testing.assert_array_equal(
        to_numpy(layer(QUERY, KEYS, keys_mask=MASK)),
        to_numpy(layer(QUERY, garbage, keys_mask=MASK)),
    )


def test_zero_vectors_and_empty_histories_have_finite_gradients():
    keys, query = KEYS.copy(), QUERY.copy()
    keys[0, 2] = 0.0
    keys[3] = 0.0
    query[2, 1] = 0.0
    mask = MASK.copy()
    mask[0, 2] = mask[3] = True
    outputs = to_numpy(CosineSimilarity()(query, keys, keys_mask=mask))
    for b in range(4):
        for n in range(3):
            expected = reference(query[b, n], keys[b], mask[b], 10.0)
            np.testing.assert_allclose(outputs[b, n], expected, rtol=1e-5, atol=1e-5)
    if keras.backend.backend() != "tensorflow":
        pytest.skip("The gradients are taken with TensorFlow.")
    import tensorflow as tf

    query, keys = tf.constant(query), tf.constant(keys)
    with tf.GradientTape() as tape:
        tape.watch([query, keys])
        outputs = CosineSimilarity()(query, keys, keys_mask=mask)
        loss = tf.reduce_sum(outputs * tf.constant([1.0, 2.0, 3.0]))
    query_gradient, keys_gradient = tape.gradient(loss, [query, keys])
    assert np.isfinite(query_gradient).all() and np.isfinite(keys_gradient).all()
    assert (keys_gradient.numpy()[~mask] == 0).all()
    assert (keys_gradient.numpy()[0, 2] == 0).all()
    assert (query_gradient.numpy()[2, 1] == 0).all()
    assert (keys_gradient.numpy()[2] != 0).all()


def test_sharpness():
    assert CosineSimilarity().sharpness == 10.0
    with pytest.raises(ValueError, match="Received: sharpness=0"):
        CosineSimilarity(sharpness=0)


def test_receives_the_implicit_mask_of_keys():
    ids = RNG.integers(1, 9, MASK.shape) * MASK
    embedding = keras.layers.Embedding(9, QUERY.shape[-1], mask_zero=True)
    layer = CosineSimilarity()
    implicit = layer(QUERY, embedding(ids))
    explicit = layer(QUERY, to_numpy(embedding(ids)), keys_mask=MASK)
    np.testing.assert_array_equal(to_numpy(implicit), to_numpy(explicit))
    assert (to_numpy(implicit)[1] == 0).all()


def test_trains_on_zero_vectors():
    query = keras.Input((6,))
    keys = keras.Input((7, 6))
    project = keras.layers.Dense(5, use_bias=False)
    outputs = CosineSimilarity()(project(query), project(keys))
    model = keras.Model([query, keys], outputs)
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    zeroed = [QUERY[:, 0].copy(), KEYS.copy()]
    zeroed[0][1] = 0.0
    zeroed[1][2, 3:] = 0.0
    before = to_numpy(project.kernel).copy()
    model.fit(zeroed, np.ones((4, 3), "float32"), verbose=0)
    after = to_numpy(project.kernel)
    assert np.isfinite(after).all()
    assert (after != before).any()


def test_a_mask_of_each_query():
    mask = RNG.random((4, 3, 7)) < 0.5
    mask[0, 1] = False
    outputs = to_numpy(CosineSimilarity()(QUERY, KEYS, keys_mask=mask))
    for b, n in np.ndindex(4, 3):
        expected = reference(QUERY[b, n], KEYS[b], mask[b, n], 10.0)
        np.testing.assert_allclose(outputs[b, n], expected, rtol=1e-5, atol=1e-5)
    one = to_numpy(CosineSimilarity()(QUERY[:, 2], KEYS, keys_mask=mask[:, 2:]))
    np.testing.assert_allclose(one, outputs[:, 2], rtol=1e-5, atol=1e-6)
