import json
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.image_folder import ImageFolder
from hccm_tf.data.image_store import ImageStore


@pytest.fixture(scope="module")
def stores(shop):
    images = sorted({name for name in shop.items.image if name})
    folder = shop.path / "shop" / "images"
    return {
        FeatureMapStore: shop.store,
        ImageFolder: ImageFolder.open(folder, images, 16),
    }


KINDS = [FeatureMapStore, ImageFolder]


def test_a_store_is_what_all_of_these_are():
    with pytest.raises(TypeError, match="abstract"):
        ImageStore()


@pytest.mark.parametrize("kind", KINDS)
def test_what_every_store_does(shop, stores, kind):
    store = stores[kind]
    assert isinstance(store, ImageStore)
    keys = tf.constant([*shop.store.keys[:3], 0, 123], tf.int64)
    rows = store.find(keys)
    assert rows.dtype == tf.int64
    assert (rows.numpy() > 0).tolist() == [True, True, True, False, False]
    maps = store.gather(rows).numpy()
    assert maps.shape == (5, *store.shape)
    assert maps[:3].any(axis=(1, 2, 3)).all() and not maps[3:].any()
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.gather(rows), maps)
    shuffled = store.shuffled(0)
    assert type(shuffled) is kind and shuffled.shape == store.shape
    dealt = shuffled.gather(shuffled.find(keys)).numpy()
    assert (dealt != maps).any() and not dealt[3:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_knows_what_its_maps_depend_on(stores, kind):
    # As an export keeps it.
    cnn = json.loads(json.dumps(stores[kind].cnn))
    assert [other.made(cnn) for other in KINDS] == [other is kind for other in KINDS]


def test_maps_are_standardised_as_those_of_another_store(stores):
    store = stores[FeatureMapStore]
    mean, std = store.channel_mean + np.float32(0.1), store.channel_std * np.float32(3)
    other = store.standardised_as(mean, std)
    for found, expected in ((other.channel_mean, mean), (other.channel_std, std)):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    assert (store.channel_mean != mean).all()
    # The maps themselves and what they depend on stay.
    rows = tf.constant([1, 2, 0], tf.int64)
    np.testing.assert_array_equal(other.gather(rows), store.gather(rows))
    assert other.cnn == store.cnn


def test_pixels_are_not_standardised(stores):
    store = stores[ImageFolder]
    assert store.channel_mean is None and store.channel_std is None
    assert store.standardised_as(None, None) is store


def test_a_photo_is_not_shown_as_another_one_of_its_key(shop, stores):
    store = stores[FeatureMapStore]
    images = pd.read_parquet(shop.maps / "images.parquet")
    keys, names = images.key.to_numpy(), images.image.to_numpy(copy=True)
    # The catalogue may hold others, and not all.
    told = np.append(keys[3:], 123), pa.array([*names[3:], "unknown"])
    assert store.with_names(*told) is store
    names[[4, 7]] = "a photo of the same key", "another one"
    found = store.with_names(keys, pa.array(names))
    rows = found.find(tf.constant(keys)).numpy()
    np.testing.assert_array_equal(np.flatnonzero(rows == 0), [4, 7])
    others = np.delete(np.arange(len(keys)), [4, 7])
    np.testing.assert_array_equal(rows[others], images.row[others] + 1)
