import keras
import numpy as np
import pytest

from hccm_tf.layers import HybridCNN, PooledShortcut
from tests.layers.numpy_reference import moments
from tests.layers.run_layer_test import randomize_weights, run_layer_test, to_numpy

RNG = np.random.default_rng(0)
IMAGES = np.abs(RNG.standard_normal((30, 12))).astype("float32")
FEATURE_MAP = RNG.standard_normal((30, 3, 2, 8)).astype("float32")
MASK = RNG.random(30) < 0.7


def reference(layer, mean, variance):
    gamma, kernel = to_numpy(layer.gate.gamma), to_numpy(layer.project.kernel)
    pooled = FEATURE_MAP.astype("float64").mean(axis=(1, 2)) @ kernel
    return pooled + gamma * (IMAGES - mean) / np.sqrt(variance + 1e-3)


@pytest.mark.parametrize("masks", [{}, {"mask": MASK}], ids=["plain", "mask"])
def test_layer(masks):
    run_layer_test(
        PooledShortcut,
        {"momentum": 0.8},
        {"images": IMAGES, "feature_map": FEATURE_MAP, **masks},
        expected_num_trainable_weights=2,
        expected_num_non_trainable_weights=2,
    )


def test_equals_numpy():
    layer = PooledShortcut(momentum=0.5)
    layer(IMAGES, FEATURE_MAP)
    randomize_weights(layer)
    mean, variance = (to_numpy(w) for w in layer.non_trainable_weights)
    outputs = to_numpy(layer(IMAGES, FEATURE_MAP, mask=MASK))
    expected = reference(layer, mean, variance) * MASK[:, None]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    outputs = to_numpy(layer(IMAGES, FEATURE_MAP, mask=MASK, training=True))
    batch_mean, batch_variance = moments(IMAGES, MASK)
    expected = reference(layer, batch_mean, batch_variance) * MASK[:, None]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    moved = to_numpy(layer.non_trainable_weights[0])
    np.testing.assert_allclose(moved, (mean + batch_mean) / 2, rtol=1e-4, atol=1e-5)


def test_it_starts_with_the_cosines_of_the_pooled_maps():
    """Those of a new CNN say nothing: its images share a mean."""
    cnn = HybridCNN(embedding_dim=64, filters=(16, 32))
    images = cnn(FEATURE_MAP)
    found = PooledShortcut()(images, FEATURE_MAP)
    pooled = FEATURE_MAP.mean(axis=(1, 2))
    np.testing.assert_allclose(cosines(found), cosines(pooled), atol=1e-5)
    assert abs(cosines(pooled).mean()) < 0.1 < cosines(images).mean()


def cosines(vectors):
    vectors = to_numpy(vectors)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]


def test_the_gate_opens():
    images, maps = keras.Input((12,)), keras.Input((3, 2, 8))
    layer = PooledShortcut()
    model = keras.Model([images, maps], layer(images, maps))
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    model.fit([IMAGES, FEATURE_MAP], IMAGES, verbose=0)
    assert (to_numpy(layer.gate.gamma) != 0).all()
