import keras
import numpy as np
import pytest

from hccm_tf.layers import MultiQueryAttention
from tests.layers.numpy_reference import dense
from tests.layers.run_layer_test import randomize_weights, run_layer_test, to_numpy
from tests.layers.test_din_attention import KEYS, MASK, OPTIONS, QUERY
from tests.layers.test_din_attention import reference as din_attention

IDS = np.random.default_rng(1).standard_normal((4, 3, 8)).astype("float32")


def random_layer(hidden_units=(4, 3), **kwargs):
    layer = MultiQueryAttention(hidden_units, **kwargs)
    layer(QUERY, IDS, KEYS)
    randomize_weights(layer)
    return layer


def reference(layer, mask, training=False):
    """Both attentions side by side."""
    projected = dense(IDS, layer.project.get_weights())
    parts = [
        din_attention(attention, query, KEYS, mask, training)[0]
        for attention, query in ((layer.by_image, QUERY), (layer.by_ids, projected))
    ]
    return np.concatenate(parts, axis=-1)


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
    expected = reference(layer, mask)
    outputs = to_numpy(layer(QUERY, IDS, KEYS, keys_mask=mask))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    for n in range(3):
        one = layer(QUERY[:, n], IDS[:, n], KEYS, keys_mask=mask)
        np.testing.assert_allclose(to_numpy(one), expected[:, n], rtol=1e-4, atol=1e-5)


def test_training_equals_numpy():
    layer = random_layer()
    expected = reference(layer, MASK, training=True)
    outputs = to_numpy(layer(QUERY, IDS, KEYS, keys_mask=MASK, training=True))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


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
