import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.errors import InputError
from tests.conftest import MAPS
from tests.reference import fingerprint, read_maps
from tfrecords_tools import extract_feature_maps as tool


@pytest.fixture(scope="module")
def sharded(shop, tmp_path_factory):
    """A store of five shards, the last one shorter, and its images' names."""
    path = tmp_path_factory.mktemp("sharded") / "maps"
    names = [name for name in shop.items.image.unique() if name][:18]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "SHARD_ROWS", 4)
        tool.extract_feature_maps(names, shop.images, path, **MAPS)
    return path, names


def test_there_are_five_shards(sharded):
    assert len(list(sharded[0].glob("*.f16"))) == 5


def test_gather_equals_the_files(sharded):
    path, _ = sharded
    store, maps = FeatureMapStore.open(path), read_maps(path)
    names = [*maps][::-1] * 2
    keys = tf.constant([fingerprint(name) for name in names])
    rows = store.find(keys)
    assert (rows.numpy() > 0).all()
    expected = np.stack([maps[name] for name in names])
    np.testing.assert_array_equal(store.gather(rows), expected)
    assert expected.std() > 1e-2


def test_maps_are_those_of_the_image(sharded, shop):
    # Each store draws its own random weights; the nearest neighbour structure that
    # an image shares with itself does not depend on them, the row order does.
    path, names = sharded
    rows = pd.read_parquet(path / "images.parquet").set_index("image").row
    assert [names[row] for row in rows] == rows.index.tolist()


def test_row_zero_and_unknown_keys(sharded):
    store = FeatureMapStore.open(sharded[0])
    unknown = tf.constant([[0, 1], [-1, np.iinfo(np.int64).max]], tf.int64)
    assert store.find(unknown).numpy().tolist() == [[0, 0], [0, 0]]
    known = store.keys[:1]
    maps = store.gather(
        tf.constant([0, store.find(known).numpy()[0], 0], tf.int64)
    ).numpy()
    assert maps.shape == (3, *store.shape) and maps.dtype == np.float16
    assert (maps[[0, 2]] == 0).all() and (maps[1] != 0).any()


def test_inside_a_dataset(sharded):
    path, _ = sharded
    store, maps = FeatureMapStore.open(path), read_maps(path)
    names = list(maps)
    keys = [fingerprint(name) for name in names]
    dataset = tf.data.Dataset.from_tensor_slices(keys).batch(5)
    dataset = dataset.map(lambda batch: store.gather(store.find(batch)))
    assert dataset.element_spec.shape.as_list() == [None, *store.shape]
    found = np.concatenate(list(dataset.as_numpy_iterator()))
    np.testing.assert_array_equal(found, np.stack([maps[name] for name in names]))


def test_channel_statistics(sharded, shop):
    for path in (sharded[0], shop.maps):
        store = FeatureMapStore.open(path)
        maps = np.stack(list(read_maps(path).values())).astype(np.float64)
        mean, std = maps.mean((0, 1, 2)), maps.std((0, 1, 2))
        np.testing.assert_allclose(store.channel_mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(store.channel_std, std, rtol=1e-4, atol=1e-5)


def test_shuffled_deals_the_same_maps_to_other_images(sharded):
    store = FeatureMapStore.open(sharded[0])
    other = store.shuffled(3)
    np.testing.assert_array_equal(other.keys, store.keys)
    assert sorted(other.rows) == sorted(store.rows)
    assert (other.rows != store.rows).mean() > 0.5
    np.testing.assert_array_equal(other.rows, store.shuffled(3).rows)


def test_unreadable_images_are_not_in_the_store(shop):
    skipped = pd.read_csv(shop.maps / "skipped.csv")
    assert len(skipped) == 2
    keys = tf.constant([fingerprint(name) for name in skipped.image])
    assert shop.store.find(keys).numpy().tolist() == [0, 0]


@pytest.mark.parametrize("damage", ["truncate", "remove", "json", "text", "parquet"])
def test_a_damaged_store_is_an_input_error(sharded, tmp_path, damage):
    path = tmp_path / "maps"
    shutil.copytree(sharded[0], path)
    shard = sorted(path.glob("*.f16"))[-1]
    if damage == "truncate":
        shard.write_bytes(shard.read_bytes()[:-2])
    file = {
        "truncate": shard,
        "remove": shard,
        "json": path / "feature_maps.json",
        "text": path / "feature_maps.json",
        "parquet": path / "images.parquet",
    }[damage]
    if damage == "text":
        file.write_text("{")
    elif damage != "truncate":
        file.unlink()
    with pytest.raises(InputError, match=file.name):
        FeatureMapStore.open(path)
