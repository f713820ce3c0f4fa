import math

import keras
import numpy as np
import pytest

from hccm_tf.layers import HybridCNN
from tests.layers.numpy_reference import conv2d, dense, moments, relu, sigmoid
from tests.layers.run_layer_test import randomize_weights, run_layer_test, to_numpy

RNG = np.random.default_rng(0)
FEATURE_MAP = RNG.standard_normal((4, 3, 5, 4, 6)).astype("float32")
CATEGORY = RNG.integers(0, 5, (4, 3)).astype("int32")
MASK = RNG.random((4, 3)) < 0.7
OPTIONS = {"embedding_dim": 7, "filters": (8, 9), "reduction_ratio": 2}
# Category, arguments and number of trainable weights of each form.
FORMS = {
    "hcm": (None, {}, 8),
    "hccm": (CATEGORY, {}, 13),
    "attention_only": (None, {"channel_attention": True}, 12),
    "no_attention": (CATEGORY, {"channel_attention": False}, 9),
    "no_prior_channel": (CATEGORY, {"prior_channel": False}, 13),
}
forms = pytest.mark.parametrize("form", FORMS)


def random_layer(category, **kwargs):
    num_categories = None if category is None else 5
    layer = HybridCNN(**{**OPTIONS, "num_categories": num_categories, **kwargs})
    layer(FEATURE_MAP, category=category)
    randomize_weights(layer)
    return layer


def reference(layer, feature_map, category, mask=None, training=False):
    """Outputs, and mean and variance of each normalization."""
    weights = [w.astype("float64") for w in layer.get_weights()]
    leading, size = feature_map.shape[:-3], feature_map.shape[-3:]
    x = feature_map.reshape(-1, *size).astype("float64")
    v, priors = np.zeros((len(x), 0)), _weights_of(layer, "prior/")
    assert len(priors) == (category is not None)
    if category is not None:
        priors[0][0] = 0.0
        v = priors[0][category.reshape(-1)]
    mlp = _weights_of(layer, "attention/")
    if layer.channel_attention or (
        layer.channel_attention is None and category is not None
    ):
        logits = 0.0
        for pool in (np.mean, np.max):
            z = np.concatenate([pool(x, axis=(1, 2)), v], axis=-1)
            logits = logits + dense(relu(dense(z, mlp[:2])), mlp[2:])
        x = sigmoid(logits)[:, None, None, :] * x
    if category is not None and layer.prior_channel:
        x = np.concatenate([x, v.reshape(-1, *size[:2], 1)], axis=-1)
    statistics = []
    for i, stride in ((1, 1), (2, layer.strides)):
        (kernel,) = _weights_of(layer, f"conv{i}/")
        gamma, beta, mean, variance = _weights_of(layer, f"norm{i}/")
        x = conv2d(x, kernel, stride)
        if training:
            full = np.broadcast_to(mask.reshape(-1, 1, 1), x.shape[:-1])
            mean, variance = moments(x, full)
        statistics += [mean, variance]
        x = relu(gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta)
    assert len(weights) == len(layer.weights)
    x = dense(x.mean(axis=(1, 2)), _weights_of(layer, "project/"))
    if mask is not None:
        x *= mask.reshape(-1, 1)
    return x.reshape(*leading, -1), statistics


def _weights_of(layer, *parts):
    """Weights with one of the parts in their path, trainable ones first."""
    weights = layer.trainable_weights + layer.non_trainable_weights
    chosen = [w for p in parts for w in weights if f"/{p}" in w.path]
    return [to_numpy(w).astype("float64") for w in chosen]


def _moving_statistics(layer):
    return _weights_of(layer, "norm1/")[2:] + _weights_of(layer, "norm2/")[2:]


@forms
@pytest.mark.parametrize("with_mask", [False, True], ids=["plain", "mask"])
def test_layer(form, with_mask):
    category, arguments, num_trainable = FORMS[form]
    if with_mask and arguments:
        pytest.skip("the masks of hcm and hccm")
    inputs = {"feature_map": FEATURE_MAP}
    if category is not None:
        inputs["category"] = category
    if with_mask:
        inputs["feature_map_mask"] = MASK
    run_layer_test(
        HybridCNN,
        {
            **OPTIONS,
            **arguments,
            "num_categories": None if category is None else 5,
            "kernel_size": 2,
            "strides": 1,
            "momentum": 0.8,
        },
        inputs,
        expected_num_trainable_weights=num_trainable,
        expected_num_non_trainable_weights=4,
        num_dynamic_dims=2,
        mixed_precision_tolerance=0.05,
    )


@forms
@pytest.mark.parametrize("kernel_size, strides", [(3, 2), (2, 1)])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "mask"])
def test_inference_equals_numpy(form, kernel_size, strides, rank, mask):
    category, arguments, _ = FORMS[form]
    layer = random_layer(
        category, kernel_size=kernel_size, strides=strides, **arguments
    )
    feature_map = FEATURE_MAP
    if rank == 1:
        feature_map, category, mask = [
            None if x is None else x[:, 0] for x in (FEATURE_MAP, category, mask)
        ]
    outputs = layer(feature_map=feature_map, category=category, feature_map_mask=mask)
    expected, _ = reference(layer, feature_map, category, mask)
    np.testing.assert_allclose(to_numpy(outputs), expected, rtol=1e-5, atol=1e-5)


@forms
@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "mask"])
def test_training_equals_numpy(form, mask):
    category, arguments, _ = FORMS[form]
    layer = random_layer(category, momentum=0.8, **arguments)
    full = np.ones_like(MASK) if mask is None else mask
    expected, statistics = reference(layer, FEATURE_MAP, category, full, training=True)
    before = _moving_statistics(layer)
    outputs = layer(
        FEATURE_MAP, category=category, feature_map_mask=mask, training=True
    )
    np.testing.assert_allclose(to_numpy(outputs), expected, rtol=1e-4, atol=1e-5)
    after = _moving_statistics(layer)
    for old, new, batch in zip(before, after, statistics, strict=True):
        np.testing.assert_allclose(new, 0.8 * old + 0.2 * batch, rtol=1e-4, atol=1e-5)


def test_masked_images_leave_no_trace():
    garbage = FEATURE_MAP.copy()
    garbage[~MASK] = 100.0 * RNG.standard_normal((np.sum(~MASK), 5, 4, 6))
    results = []
    for feature_map in (FEATURE_MAP, garbage):
        layer = random_layer(CATEGORY)
        outputs = layer(
            feature_map, category=CATEGORY, feature_map_mask=MASK, training=True
        )
        results.append([to_numpy(outputs)[MASK], *layer.get_weights()])
    for plain, dirty in zip(*results, strict=True):
        np.testing.assert_allclose(plain, dirty, rtol=1e-6, atol=1e-6)


def test_gradients_do_not_depend_on_how_masked_images_are_left_out():
    """Plain: the images that the mask leaves, alone."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's tape")
    import tensorflow as tf

    layer = random_layer(CATEGORY)
    factors = RNG.standard_normal((np.sum(MASK), 7))
    gradients = []
    for inputs in (
        {"feature_map": FEATURE_MAP[MASK], "category": CATEGORY[MASK]},
        {"feature_map": FEATURE_MAP, "category": CATEGORY, "feature_map_mask": MASK},
    ):
        with tf.GradientTape() as tape:
            outputs = layer(**inputs, training=True)
            outputs = outputs[MASK] if "feature_map_mask" in inputs else outputs
            total = tf.reduce_sum(outputs * factors)
        weights = [w.value for w in layer.trainable_weights]
        gradients.append(tape.gradient(total, weights))
    for plain, masked in zip(*gradients, strict=True):
        np.testing.assert_allclose(
            tf.convert_to_tensor(masked), tf.convert_to_tensor(plain), atol=1e-5
        )


def test_a_batch_without_images():
    layer = random_layer(CATEGORY)
    before = layer.get_weights()
    outputs = layer(
        FEATURE_MAP,
        category=CATEGORY,
        feature_map_mask=np.zeros_like(MASK),
        training=True,
    )
    np.testing.assert_array_equal(to_numpy(outputs), 0)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_category_changes_the_output():
    layer = random_layer(CATEGORY)
    outputs = [
        to_numpy(layer(FEATURE_MAP, category=np.full((4, 3), c))) for c in (0, 1, 2)
    ]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    assert np.abs(outputs[1] - outputs[2]).max() > 1e-3


@pytest.mark.parametrize("size", [5, 7])
@pytest.mark.parametrize("with_category", [False, True], ids=["hcm", "hccm"])
def test_documented_number_of_parameters(size, with_category):
    num_categories = 50 if with_category else None
    layer = HybridCNN(num_categories=num_categories)
    category_shape = (None,) if with_category else None
    layer.build((None, size, size, 96), category_shape=category_shape)
    count = sum(math.prod(w.shape) for w in layer.trainable_weights)
    if with_category:
        count -= 50 * size * size
    row = f"| {size} x {size} x 96 | {'yes' if with_category else 'no'} | {count:,} |"
    assert row in HybridCNN.__doc__
    expected = {
        (5, False): 96768,
        (7, False): 96768,
        (5, True): 98236,
        (7, True): 98380,
    }
    assert count == expected[size, with_category]


def test_a_map_of_one_position():
    """An MLP, with a prior of 16 values; plain: NumPy, and no kernel of 3 x 3."""
    vectors = RNG.standard_normal((9, 1, 1, 6)).astype("float32")
    category = RNG.integers(0, 5, 9).astype("int32")
    layer = HybridCNN(**OPTIONS, num_categories=5)
    layer(vectors, category=category)
    randomize_weights(layer)
    (prior,) = _weights_of(layer, "prior/")
    assert prior.shape == (5, 16)
    prior[0] = 0.0
    x, v = vectors[:, 0, 0].astype("float64"), prior[category]
    mlp = _weights_of(layer, "attention/")
    logits = 2 * dense(relu(dense(np.concatenate([x, v], -1), mlp[:2])), mlp[2:])
    x = np.concatenate([sigmoid(logits) * x, v], axis=-1)
    for number, shape in ((1, (1, 1, 22, 8)), (2, (1, 1, 8, 9))):
        (kernel,) = _weights_of(layer, f"conv{number}/")
        assert kernel.shape == shape
        gamma, beta, mean, variance = _weights_of(layer, f"norm{number}/")
        x = (x @ kernel[0, 0] - mean) / np.sqrt(variance + 1e-3) * gamma + beta
        x = relu(x)
    expected = dense(x, _weights_of(layer, "project/"))
    outputs = to_numpy(layer(vectors, category=category))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    alone = HybridCNN(**OPTIONS)
    assert alone(vectors).shape == (9, 7)


def test_reduction_ratio():
    layer = random_layer(CATEGORY, reduction_ratio=3)
    shapes = [w.shape for w in _weights_of(layer, "attention/")]
    assert shapes == [(6 + 20, 2), (2,), (2, 6), (6,)]


def test_defaults():
    config = HybridCNN().get_config()
    assert config["embedding_dim"] == 128
    assert config["filters"] == (64, 128)
    assert (config["kernel_size"], config["strides"]) == (3, 2)
    assert (config["reduction_ratio"], config["momentum"]) == (16, 0.9)


def test_category_and_num_categories_go_together():
    with pytest.raises(ValueError, match="if and only if.*Received: category of"):
        HybridCNN()(FEATURE_MAP, category=CATEGORY)
    with pytest.raises(ValueError, match="Received: category of shape None"):
        HybridCNN(num_categories=5)(FEATURE_MAP)
    symbolic = keras.KerasTensor((None, 5, 4, 6))
    with pytest.raises(ValueError, match="Received: category of shape None"):
        HybridCNN(num_categories=5)(symbolic)


def test_a_category_needs_a_part():
    arguments = {"channel_attention": False, "prior_channel": False}
    with pytest.raises(ValueError, match="part.*Received: channel_attention=False"):
        HybridCNN(num_categories=5, **arguments)
    assert HybridCNN(**arguments).num_categories is None


def test_shape_must_be_static():
    with pytest.raises(ValueError, match="must be static. Received: "):
        HybridCNN().build((None, None, 5, 96))
