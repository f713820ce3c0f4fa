import numpy as np
import pytest

from hccm_tf.layers import Dice
from tests.layers.numpy_reference import moments, sigmoid
from tests.layers.run_layer_test import randomize_weights, run_layer_test, to_numpy

RNG = np.random.default_rng(0)
INPUTS = (RNG.standard_normal((4, 5, 3)) * [1, 3, 0.5] + [0, 1, -1]).astype("float32")
MASK = RNG.random((4, 5)) < 0.7


def reference(x, alpha, mean, variance, epsilon):
    p = sigmoid((x - mean) / np.sqrt(variance + epsilon))
    return p * x + (1 - p) * alpha * x


def random_layer(**kwargs):
    layer = Dice(**kwargs)
    layer.build(INPUTS.shape)
    randomize_weights(layer)
    return layer


@pytest.mark.parametrize("inputs", [{}, {"mask": MASK}], ids=["plain", "mask"])
def test_layer(inputs):
    run_layer_test(
        Dice,
        {"momentum": 0.8, "epsilon": 1e-3},
        {"inputs": INPUTS, **inputs},
        expected_num_trainable_weights=1,
        expected_num_non_trainable_weights=2,
        num_dynamic_dims=2,
    )


@pytest.mark.parametrize("epsilon", [1e-8, 0.5])
def test_inference_equals_numpy(epsilon):
    layer = random_layer(epsilon=epsilon)
    expected = reference(INPUTS, *layer.get_weights(), epsilon)
    for mask in (None, MASK):
        outputs = to_numpy(layer(INPUTS, mask=mask))
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "mask"])
def test_training_equals_numpy(mask):
    layer = random_layer(momentum=0.8)
    alpha, old_mean, old_variance = [w.copy() for w in layer.get_weights()]
    outputs = to_numpy(layer(INPUTS, mask=mask, training=True))
    mean, variance = moments(INPUTS, mask)
    expected = reference(INPUTS, alpha, mean, variance, 1e-8)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    _, new_mean, new_variance = layer.get_weights()
    np.testing.assert_allclose(new_mean, 0.8 * old_mean + 0.2 * mean, rtol=1e-5)
    np.testing.assert_allclose(
        new_variance, 0.8 * old_variance + 0.2 * variance, rtol=1e-5
    )


def test_masked_positions_leave_no_trace():
    garbage = INPUTS.copy()
    garbage[~MASK] = 1e4 * RNG.standard_normal((np.sum(~MASK), 3))
    results = []
    for inputs in (INPUTS, garbage):
        layer = random_layer()
        outputs = to_numpy(layer(inputs, mask=MASK, training=True))
        results.append([outputs[MASK], *layer.get_weights()])
    for plain, dirty in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, dirty)


def test_initial_state_and_defaults():
    layer = Dice()
    layer.build((None, 3))
    alpha, mean, variance = layer.get_weights()
    assert (alpha == 0).all() and (mean == 0).all() and (variance == 1).all()
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-8)
