import numpy as np
import pytest

from hccm_tf.layers import SpatialAttention
from tests.layers.numpy_reference import conv2d, resize_bilinear, sigmoid
from tests.layers.run_layer_test import randomize_weights, run_layer_test, to_numpy

RNG = np.random.default_rng(0)
FEATURE_MAP = RNG.standard_normal((4, 2, 6, 5, 8)).astype("float32")
PRIOR_MAP = RNG.standard_normal((4, 2, 3, 4, 1)).astype("float32")
LARGE_PRIOR_MAP = RNG.standard_normal((4, 2, 9, 8, 1)).astype("float32")
SAME_PRIOR_MAP = RNG.standard_normal((4, 2, 6, 5, 1)).astype("float32")


def reference(layer, feature_map, prior_map=None):
    x = feature_map.reshape(-1, *feature_map.shape[-3:])
    squeezed = [x.mean(axis=-1, keepdims=True), x.max(axis=-1, keepdims=True)]
    if prior_map is not None:
        prior_map = prior_map.reshape(-1, *prior_map.shape[-3:])
        squeezed.append(resize_bilinear(prior_map, *x.shape[1:3]))
    (kernel,) = layer.get_weights()
    weights = sigmoid(conv2d(np.concatenate(squeezed, axis=-1), kernel))
    return (weights * x).reshape(feature_map.shape)


@pytest.mark.parametrize("inputs", [{}, {"prior_map": PRIOR_MAP}], ids=["plain", "map"])
def test_layer(inputs):
    run_layer_test(
        SpatialAttention,
        {"kernel_size": 3},
        {"feature_map": FEATURE_MAP, **inputs},
        expected_num_trainable_weights=1,
        num_dynamic_dims=2,
    )


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(
    "prior_map",
    [None, PRIOR_MAP, LARGE_PRIOR_MAP, SAME_PRIOR_MAP],
    ids=["plain", "enlarge", "shrink", "same"],
)
def test_equals_numpy(prior_map, rank):
    layer = SpatialAttention(kernel_size=3)
    feature_map = FEATURE_MAP if rank == 2 else FEATURE_MAP[:, 0]
    if prior_map is not None and rank == 1:
        prior_map = prior_map[:, 0]
    arguments = {"feature_map": feature_map, "prior_map": prior_map}
    layer(**arguments)
    randomize_weights(layer)
    np.testing.assert_allclose(
        to_numpy(layer(**arguments)),
        reference(layer, **arguments),
        rtol=1e-5,
        atol=1e-5,
    )


def test_default_kernel():
    layer = SpatialAttention()
    layer.build((None, 6, 5, 8), prior_map_shape=(None, 3, 4, 1))
    assert [w.shape for w in layer.weights] == [(7, 7, 3, 1)]


def test_invalid_shapes():
    with pytest.raises(ValueError, match="static height and width.* Received: "):
        SpatialAttention().build((None, None, 5, 8))
    with pytest.raises(ValueError, match="one channel. Received: "):
        SpatialAttention().build((None, 6, 5, 8), prior_map_shape=(None, 3, 4, 2))
