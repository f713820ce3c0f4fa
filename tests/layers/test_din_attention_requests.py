"""`DINAttention` on requests of different sizes, with masked candidates."""

import keras
import numpy as np
import pytest

from tests.layers.run_layer_test import to_numpy
from tests.layers.test_din_attention import (
    KEYS,
    MASK,
    OPTIONS,
    QUERY,
    QUERY_MASK,
    random_layer,
    reference,
)

# Of candidates that count, requests with none, one, some and all.
SCATTERED = np.array([[0, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0]], bool)
QUERY_MASKS = pytest.mark.parametrize(
    "query_mask", [QUERY_MASK, SCATTERED], ids=["first", "scattered"]
)
MASKS = pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "mask"])
# Where the MLP has more units, rows are narrow for it, and otherwise computed.
FORMS = pytest.mark.parametrize(
    "hidden_units", [(4, 3), (15, 3)], ids=["wide", "narrow"]
)


@FORMS
@MASKS
@QUERY_MASKS
@pytest.mark.parametrize("activation, normalize", OPTIONS)
@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_statistics_equal_numpy(
    hidden_units, mask, query_mask, activation, normalize, training
):
    layer = random_layer(hidden_units, activation=activation, normalize=normalize)
    old = [to_numpy(w) for w in layer.non_trainable_weights]
    expected, statistics = reference(layer, QUERY, KEYS, mask, training, query_mask)
    outputs = to_numpy(
        layer(QUERY, KEYS, keys_mask=mask, query_mask=query_mask, training=training)
    )
    np.testing.assert_allclose(
        outputs[query_mask], expected[query_mask], rtol=1e-4, atol=1e-5
    )
    new = [to_numpy(w) for w in layer.non_trainable_weights]
    for before, after, batch in zip(old, new, statistics, strict=True):
        updated = 0.9 * before + 0.1 * batch if training else before
        np.testing.assert_allclose(after, updated, rtol=1e-4, atol=1e-5)


@FORMS
@MASKS
@QUERY_MASKS
@pytest.mark.parametrize("activation, normalize", OPTIONS)
def test_masked_candidates_leave_no_trace(
    hidden_units, mask, query_mask, activation, normalize
):
    garbage = np.where(query_mask[..., None], QUERY, 100 * QUERY + 30)
    results = []
    for query in (QUERY, garbage):
        layer = random_layer(hidden_units, activation=activation, normalize=normalize)
        masks = {"keys_mask": mask, "query_mask": query_mask}
        outputs = to_numpy(layer(query, KEYS, **masks, training=True))
        assert np.isfinite(outputs).all()
        results.append([outputs[query_mask], *layer.get_weights()])
    for plain, dirty in zip(*results, strict=True):
        np.testing.assert_allclose(plain, dirty, rtol=1e-6, atol=1e-6)


@FORMS
@MASKS
@pytest.mark.parametrize("training", [False, True])
def test_requests_that_are_all_padding(hidden_units, mask, training):
    layer = random_layer(hidden_units)
    before = layer.get_weights()
    nobody = np.zeros_like(QUERY_MASK)
    masks = {"keys_mask": mask, "query_mask": nobody}
    outputs = layer(QUERY, KEYS, **masks, training=training)
    assert to_numpy(outputs).shape == QUERY.shape
    assert np.isfinite(to_numpy(outputs)).all()
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@FORMS
@pytest.mark.parametrize("activation, normalize", OPTIONS)
def test_weights_of_the_candidates_that_count(hidden_units, activation, normalize):
    layer = random_layer(hidden_units, activation=activation, normalize=normalize)
    masks = {"keys_mask": MASK, "query_mask": QUERY_MASK}
    outputs, weights = layer(QUERY, KEYS, **masks, return_attention_scores=True)
    outputs, weights = to_numpy(outputs), to_numpy(weights)
    plain = to_numpy(layer(QUERY, KEYS, **masks))
    found = np.einsum("bnt,btd->bnd", weights, KEYS)[QUERY_MASK]
    for other in (outputs, plain):
        np.testing.assert_allclose(found, other[QUERY_MASK], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="takes gradients with TensorFlow"
)
@FORMS
@QUERY_MASKS
@pytest.mark.parametrize("activation, normalize", OPTIONS)
def test_gradients_equal_those_of_one_candidate_each(
    hidden_units, query_mask, activation, normalize
):
    """The same candidates, each with a copy of its request's history."""
    import tensorflow as tf

    layer = random_layer(
        hidden_units, activation=activation, normalize=normalize, dtype="float64"
    )
    before = layer.get_weights()
    request = np.nonzero(query_mask)[0]
    query, keys = tf.constant(QUERY, "float64"), tf.constant(KEYS, "float64")
    target = np.random.default_rng(1).standard_normal((query_mask.sum(), 5))

    def together():
        masks = {"keys_mask": MASK, "query_mask": query_mask}
        return tf.boolean_mask(layer(query, keys, **masks, training=True), query_mask)

    def alone():
        one, copies = tf.boolean_mask(query, query_mask), tf.gather(keys, request)
        return layer(one, copies, keys_mask=MASK[request], training=True)

    results = []
    for form in (together, alone):
        layer.set_weights(before)
        with tf.GradientTape() as tape:
            tape.watch([query, keys])
            outputs = form()
            loss = tf.reduce_sum(tf.square(outputs - target))
        sources = [query, keys, *[w.value for w in layer.trainable_weights]]
        gradients = map(tf.convert_to_tensor, tape.gradient(loss, sources))
        results.append([outputs, *gradients, *layer.get_weights()])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    assert (results[0][1].numpy()[~query_mask] == 0).all()
