import numpy as np
import pytest
import tensorflow as tf
from sklearn.decomposition import PCA

from hccm_tf.data.pca import fit_pca


@pytest.fixture(scope="module")
def pooled(shop):
    """The standardised maps of all images, pooled."""
    store = shop.store
    maps = store.gather(tf.range(1, len(store.rows) + 1, dtype=tf.int64)).numpy()
    scaled = (maps.astype(np.float64) - store.channel_mean) / store.channel_std
    return scaled.mean(axis=(1, 2))


def _distance(pooled, components):
    """How far the images are from the hyperplane, as a share of their variance."""
    centred = pooled - pooled.mean(axis=0)
    rest = centred - centred @ components.T @ components
    return np.sum(rest**2) / np.sum(centred**2)


@pytest.mark.parametrize("batch_size", [13, 1000])
def test_equals_scikit_learn_on_all_images(shop, pooled, batch_size):
    expected = PCA(5).fit(pooled)
    mean, components = fit_pca(shop.store, 5, batch_size)
    np.testing.assert_allclose(mean, expected.mean_, atol=1e-3)
    np.testing.assert_allclose(components @ components.T, np.eye(5), atol=1e-5)
    best = _distance(pooled, expected.components_)
    assert 0.005 < best < 0.9
    # Pieces lose a little.
    loss = _distance(pooled, components) / best
    assert loss < (1.0001 if batch_size == 1000 else 1.1)
    if batch_size == 1000:
        same = np.abs(components @ expected.components_.T)
        np.testing.assert_allclose(same, np.eye(5), atol=1e-2)


def test_as_many_components_as_there_are(shop, pooled):
    count = min(pooled.shape)
    mean, components = fit_pca(shop.store, 10_000)
    assert components.shape == (count, pooled.shape[1])
    assert mean.shape == (pooled.shape[1],)


def test_shuffled_images_have_the_same_components(shop):
    for one, other in zip(
        fit_pca(shop.store, 4), fit_pca(shop.store.shuffled(3), 4), strict=True
    ):
        np.testing.assert_array_equal(one, other)
