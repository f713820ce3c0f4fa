import keras
import numpy as np
import pytest

from hccm_tf.layers import MultiQueryAttention
from tests.layers.numpy_reference import dense
from tests.layers.run_layer_test import randomize_weights, run_layer_test, to_numpy
from tests.layers.test_din_attention import KEYS, MASK, OPTIONS, QUERY, QUERY_MASK
from tests.layers.test_din_attention import reference as din_attention

IDS = np.random.default_rng(1).standard_normal((4, 3, 8)).astype("float32")


def random_layer(hidden_units=(4, 3), **kwargs):
    layer = MultiQueryAttention(hidden_units, **kwargs)
    layer(QUERY, IDS, KEYS)
    randomize_weights(layer)
    return layer


def reference(layer, mask, training=False, query_mask=None):
    """Both attentions side by side, and the statistics of both."""
    projected = dense(IDS, layer.project.get_weights())
    parts = [
        din_attention(attention, query, KEYS, mask, training, query_mask)
        for attention, query in ((layer.by_image, QUERY), (layer.by_ids, projected))
    ]
    outputs, statistics = zip(*parts, strict=True)
    return np.concatenate(outputs, axis=-1), sum(statistics, [])


@pytest.mark.parametrize("activation, normalize", OPTIONS)
@pytest.mark.parametrize("rank", [2, 3])
def test_layer(rank, activation, normalize):
    dice = activation == "dice"
    query, ids = (QUERY, IDS) if rank == 3 else (QUERY[:, 0], IDS[:, 0])
    run_layer_test(
        MultiQueryAttention,
        {
            "hidden_units": (4, 3),
            "activation": activation,
            "normalize": normalize,
        },
        {"query": query, "id_query": ids, "keys": KEYS, "keys_mask": MASK},
        expected_num_trainable_weights=2
        + 2 * (6 + 2 * dice - (normalize == "softmax")),
        expected_num_non_trainable_weights=8 if dice else 0,
        num_dynamic_dims={
            "query": rank - 1,
            "id_query": rank - 1,
            "keys": 2,
            "keys_mask": 2,
        },
        mixed_precision_tolerance=0.05,
    )


@pytest.mark.parametrize("activation, normalize", OPTIONS)
@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "mask"])
def test_inference_equals_numpy(activation, normalize, mask):
    layer = random_layer(activation=activation, normalize=normalize)
    expected, _ = reference(layer, mask)
    outputs = to_numpy(layer(QUERY, IDS, KEYS, keys_mask=mask))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    for n in range(3):
        one = layer(QUERY[:, n], IDS[:, n], KEYS, keys_mask=mask)
        np.testing.assert_allclose(to_numpy(one), expected[:, n], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("query_mask", [None, QUERY_MASK], ids=["all", "some"])
@pytest.mark.parametrize("hidden_units", [(4, 3), (15, 3)])
def test_training_equals_numpy(hidden_units, query_mask):
    layer = random_layer(hidden_units)
    old = [to_numpy(w) for w in layer.non_trainable_weights]
    expected, statistics = reference(layer, MASK, True, query_mask)
    masks = {"keys_mask": MASK, "query_mask": query_mask}
    outputs = to_numpy(layer(QUERY, IDS, KEYS, **masks, training=True))
    counts = np.ones_like(QUERY_MASK) if query_mask is None else query_mask
    np.testing.assert_allclose(outputs[counts], expected[counts], rtol=1e-4, atol=1e-5)
    new = [to_numpy(w) for w in layer.non_trainable_weights]
    for before, after, batch in zip(old, new, statistics, strict=True):
        np.testing.assert_allclose(
            after, 0.9 * before + 0.1 * batch, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("hidden_units", [(4, 3), (15, 3)])
def test_masked_candidates_leave_no_trace(hidden_units, training):
    masks = {"keys_mask": MASK, "query_mask": QUERY_MASK}
    results = []
    for factor in (1, 100):
        layer = random_layer(hidden_units)
        there = QUERY_MASK[..., None]
        query, ids = (np.where(there, x, factor * x) for x in (QUERY, IDS))
        outputs = to_numpy(layer(query, ids, KEYS, **masks, training=training))
        assert np.isfinite(outputs).all()
        results.append([outputs[QUERY_MASK], *layer.get_weights()])
    for plain, dirty in zip(*results, strict=True):
        np.testing.assert_allclose(plain, dirty, rtol=1e-6, atol=1e-6)


def test_empty_history_gives_zeros():
    outputs = to_numpy(random_layer()(QUERY, IDS, KEYS, keys_mask=MASK))
    np.testing.assert_array_equal(outputs[1], 0.0)
    assert (outputs[[0, 2, 3]] != 0).all()


def test_invalid_arguments():
    with pytest.raises(ValueError, match="hidden_units"):
        MultiQueryAttention(hidden_units=())
    with pytest.raises(ValueError, match="`id_query` must be static. Received: "):
        MultiQueryAttention().build((None, 4), (None, None), (None, None, 4))


def test_receives_the_implicit_mask_of_keys():
    ids = np.arange(1, 7) * MASK
    embedding = keras.layers.Embedding(9, QUERY.shape[-1], mask_zero=True)
    layer = random_layer()
    implicit = layer(QUERY, IDS, embedding(ids))
    explicit = layer(QUERY, IDS, to_numpy(embedding(ids)), keys_mask=MASK)
    np.testing.assert_array_equal(to_numpy(implicit), to_numpy(explicit))
