import numpy as np
import pytest

from hccm_tf.layers import ChannelAttention
from tests.layers.numpy_reference import dense, relu, sigmoid
from tests.layers.run_layer_test import randomize_weights, run_layer_test, to_numpy

RNG = np.random.default_rng(0)
FEATURE_MAP = RNG.standard_normal((4, 2, 3, 5, 8)).astype("float32")
PRIOR = RNG.standard_normal((4, 2, 6)).astype("float32")
POOL = {"avg": np.mean, "max": np.max}


def reference(layer, feature_map, prior=None):
    weights = to_numpy(layer.get_weights())
    logits = 0.0
    for name in layer.pooling:
        x = POOL[name](feature_map, axis=(-3, -2))
        if prior is not None:
            x = np.concatenate([x, prior], axis=-1)
        logits = logits + dense(relu(dense(x, weights[:2])), weights[2:])
    return sigmoid(logits)[..., None, None, :] * feature_map


@pytest.mark.parametrize("inputs", [{}, {"prior": PRIOR}], ids=["plain", "prior"])
def test_layer(inputs):
    run_layer_test(
        ChannelAttention,
        {"reduction_ratio": 2, "pooling": ("max", "avg")},
        {"feature_map": FEATURE_MAP, **inputs},
        expected_num_trainable_weights=4,
        num_dynamic_dims=2,
    )


@pytest.mark.parametrize("pooling", [("avg",), ("max",), ("avg", "max")])
@pytest.mark.parametrize("prior", [None, PRIOR], ids=["plain", "prior"])
@pytest.mark.parametrize("rank", [1, 2])
def test_equals_numpy(pooling, prior, rank):
    layer = ChannelAttention(reduction_ratio=1, pooling=pooling)
    feature_map = FEATURE_MAP if rank == 2 else FEATURE_MAP[:, 0]
    if prior is not None and rank == 1:
        prior = prior[:, 0]
    arguments = {"feature_map": feature_map, "prior": prior}
    layer(**arguments)
    randomize_weights(layer)
    np.testing.assert_allclose(
        to_numpy(layer(**arguments)),
        reference(layer, **arguments),
        rtol=1e-5,
        atol=1e-5,
    )


def test_hidden_units():
    for ratio, units in [(1, 8), (3, 2), (8, 1), (16, 1)]:
        layer = ChannelAttention(reduction_ratio=ratio)
        layer.build((None, 3, 5, 8), prior_shape=(None, 6))
        assert [w.shape for w in layer.weights] == [
            (14, units),
            (units,),
            (units, 8),
            (8,),
        ]


def test_defaults():
    layer = ChannelAttention()
    assert layer.reduction_ratio == 16
    assert layer.pooling == ("avg", "max")


@pytest.mark.parametrize("pooling", [(), ("avg", "avg"), ("min",), "sum"])
def test_invalid_pooling(pooling):
    with pytest.raises(ValueError, match="`pooling` must .* Received: "):
        ChannelAttention(pooling=pooling)


def test_invalid_reduction_ratio_and_shape():
    with pytest.raises(ValueError, match="Received: reduction_ratio=0"):
        ChannelAttention(reduction_ratio=0)
    with pytest.raises(ValueError, match="must be static. Received: "):
        ChannelAttention().build((None, 3, 5, None))


def test_an_even_start_weighs_all_channels_alike():
    feature_map = np.random.default_rng(0).normal(size=(2, 3, 3, 8)).astype("float32")
    layer = ChannelAttention(even_start=True)
    outputs, weights = layer(feature_map, return_attention_scores=True)
    np.testing.assert_array_equal(to_numpy(weights), 0.5)
    np.testing.assert_allclose(to_numpy(outputs), feature_map / 2)
