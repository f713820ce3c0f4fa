import keras
import numpy as np
import pytest

from hccm_tf.layers.batch_normalization import BatchNormalization, normalize_batch
from tests.layers.numpy_reference import moments
from tests.layers.run_layer_test import randomize_weights, to_numpy

RNG = np.random.default_rng(0)
SHAPES = [(40, 5), (4, 10, 5), (4, 3, 2, 5)]


def random_inputs(shape):
    inputs = RNG.standard_normal(shape) * [1, 3, 0.5, 1, 1] + [0, 1, -1, 3, 0]
    return inputs.astype("float32")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("epsilon", [1e-8, 0.5])
def test_function_equals_numpy(shape, epsilon):
    x = random_inputs(shape)
    scale, offset = RNG.standard_normal((2, 5)).astype("float32")
    tensors = [keras.ops.convert_to_tensor(values) for values in (x, scale, offset)]
    results = normalize_batch(tensors[0], epsilon, *tensors[1:])
    mean, variance = moments(x)
    outputs = (x - mean) / np.sqrt(variance + epsilon) * scale + offset
    for actual, expected in zip(results, (outputs, mean, variance), strict=True):
        np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-5, atol=1e-5)


def test_one_position():
    x = keras.ops.convert_to_tensor(random_inputs((1, 5)))
    outputs, mean, variance = map(to_numpy, normalize_batch(x, 1e-3))
    np.testing.assert_allclose(outputs, 0, atol=1e-5)
    np.testing.assert_allclose(mean, to_numpy(x)[0], rtol=1e-6)
    np.testing.assert_allclose(variance, 0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("masked", [False, True])
def test_layer_equals_keras(shape, dtype, masked):
    x = random_inputs(shape)
    mask = RNG.random(shape[:-1]) < 0.6 if masked else None
    layers = [
        kind(momentum=0.8, dtype=dtype)
        for kind in (keras.layers.BatchNormalization, BatchNormalization)
    ]
    for layer in layers:
        layer.build(shape)
        randomize_weights(layer)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for training in (True, False):
        expected, actual = [
            to_numpy(layer(x, training=training, mask=mask)) for layer in layers
        ]
        assert actual.dtype == expected.dtype
        np.testing.assert_allclose(
            actual.astype("float32"), expected.astype("float32"), tolerance, tolerance
        )
    for actual, expected in zip(*[w.get_weights() for w in layers], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's tape")
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_equal_keras(shape):
    import tensorflow as tf

    x = tf.constant(random_inputs(shape))
    factors = RNG.standard_normal(shape)
    gradients = []
    for kind in (keras.layers.BatchNormalization, BatchNormalization):
        layer = kind()
        layer.build(shape)
        randomize_weights(layer)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x, training=True) * factors)
        sources = [x, *[w.value for w in layer.trainable_weights]]
        gradients.append(tape.gradient(total, sources))
    for plain, fused in zip(*gradients, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"inputs": np.zeros((0, 5), "float32")},
        {"inputs": random_inputs((8, 5)), "mask": np.zeros(8, bool)},
        {"inputs": random_inputs((8, 5)), "update": np.array(False)},
    ],
    ids=["empty", "masked", "update"],
)
def test_averages_that_stay(arguments):
    layer = BatchNormalization()
    layer.build((None, 5))
    randomize_weights(layer)
    before = layer.get_weights()
    outputs = to_numpy(layer(**arguments, training=True))
    assert outputs.shape == arguments["inputs"].shape and np.isfinite(outputs).all()
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
