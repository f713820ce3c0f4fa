import json
import math
import pathlib
import pickle
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.pooled_maps import PooledMaps
from hccm_tf.errors import InputError
from hccm_tf.preparation.feature_maps import settings as feature_map_settings
from hccm_tf.preparation.feature_maps import shards as feature_map_shards
from hccm_tf.preparation.feature_maps.extract import extract_feature_maps
from hccm_tf.preparation.feature_maps.shards import quantize_maps
from tests.conftest import MAPS
from tests.reference import fingerprint, read_maps


def _extract(shop, path, dtype):
    names = [name for name in shop.items.image.unique() if name][:18]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_map_settings, "SHARD_ROWS", 4)
        patch.setattr(feature_map_shards, "BATCH_SIZE", 3)
        extract_feature_maps(names, shop.images, path, dtype=dtype, **MAPS)
    return path, names


@pytest.fixture(scope="module")
def sharded(shop, tmp_path_factory):
    """A store of five shards, the last one shorter, and its images' names."""
    return _extract(shop, tmp_path_factory.mktemp("sharded") / "maps", "float16")


@pytest.fixture(scope="module")
def quantized(shop, tmp_path_factory):
    """The same as int8."""
    return _extract(shop, tmp_path_factory.mktemp("quantized") / "maps", "int8")[0]


def _read_int8(path):
    """Image name → (steps, scales), read without the package."""
    shape = json.loads((path / "feature_maps.json").read_text())["shape"]
    steps, scales = (
        np.concatenate([np.fromfile(file, dtype) for file in sorted(path.glob(name))])
        for dtype, name in (("i1", "feature_maps-*.i8"), ("<f2", "scales-*.f16"))
    )
    steps, scales = steps.reshape(-1, *shape), scales.reshape(-1, 1, 1, shape[-1])
    table = pd.read_parquet(path / "images.parquet")
    return {
        image: (steps[row], scales[row])
        for image, row in zip(table.image, table.row, strict=True)
    }


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


def test_rows_are_in_the_order_of_the_images(sharded):
    path, names = sharded
    rows = pd.read_parquet(path / "images.parquet").set_index("image").row
    skipped = set(pd.read_csv(path / "skipped.csv").image)
    kept = [name for name in names if name not in skipped]
    assert [kept[row] for row in rows] == rows.index.tolist()


@pytest.mark.parametrize("magnitude", [1e-9, 3e-7, 1e-5, 1e-3, 1.0, 60.0, 6e4])
def test_quantize_bounds_the_error(magnitude):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(40, 5, 3, 8)) * rng.uniform(size=(40, 1, 1, 8))
    maps = (maps * magnitude / np.abs(maps).max()).astype(np.float32)
    maps[0] = 0
    steps, scales = quantize_maps(maps)
    assert (steps.dtype, scales.dtype) == (np.int8, np.float16)
    assert scales.shape == (40, 1, 1, 8) and (steps[0] == 0).all()
    exact = np.abs(maps).max((1, 2), keepdims=True).astype(np.float64) / 127
    # The next float16 above the exact scale; they are 2**-24 apart near 0.
    assert (scales >= exact).all()
    assert (scales - exact <= np.maximum(exact * 2**-10, 2**-24)).all()
    error = np.abs(steps * scales.astype(np.float64) - maps)
    assert (error <= scales.astype(np.float64) / 2 * (1 + 1e-6)).all()
    assert error.max() > 0


def test_int8_is_near_float16(sharded, quantized):
    exact, store = read_maps(sharded[0]), FeatureMapStore.open(quantized)
    stored = _read_int8(quantized)
    assert set(exact) == set(stored)
    names = sorted(exact)
    rows = store.find(tf.constant([fingerprint(name) for name in names]))
    found = store.gather(rows).numpy()
    assert found.dtype == np.float16
    steps = np.stack([stored[name][0] for name in names])
    scales = np.stack([stored[name][1] for name in names])
    np.testing.assert_array_equal(found, steps.astype(np.float16) * scales)
    maps = np.stack([exact[name] for name in names])
    # Half a step, and the roundings of both stores to float16.
    rounding = 2 * np.maximum(np.abs(maps.astype(np.float64)) * 2**-11, 2**-25)
    error = np.abs(found.astype(np.float64) - maps)
    assert (error <= scales.astype(np.float64) / 2 + rounding + 1e-6).all()
    assert error.std() > 1e-5
    # 255 steps for each channel of each map.
    assert (np.abs(steps).max((1, 2)) == 127).mean() > 0.99
    size = sum(file.stat().st_size for file in quantized.glob("*-of-*"))
    assert size < 0.6 * sum(file.stat().st_size for file in sharded[0].glob("*-of-*"))


def test_int8_inside_a_dataset(quantized):
    store = FeatureMapStore.open(quantized)
    rows = np.asarray([0, 3, 17, 1, 0, 9, 4])
    dataset = tf.data.Dataset.from_tensors(rows).map(store.gather)
    (found,) = dataset.as_numpy_iterator()
    np.testing.assert_array_equal(found, store.gather(tf.constant(rows)))
    assert (found[[0, 4]] == 0).all() and (found[[1, 2, 3]] != 0).any((1, 2, 3)).all()
    one_by_one = [store.gather(tf.constant(rows[i : i + 1]))[0] for i in range(7)]
    np.testing.assert_array_equal(found, np.stack(one_by_one))


def test_int8_statistics_are_of_the_maps_that_are_gathered(quantized):
    store = FeatureMapStore.open(quantized)
    maps = store.gather(tf.constant(store.rows + 1)).numpy().astype(np.float64)
    np.testing.assert_allclose(store.channel_mean, maps.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(store.channel_std, maps.std((0, 1, 2)), rtol=1e-6)


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


def _private_bytes():
    """Memory of this process that is not of files."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


def test_no_shard_is_read_into_memory(tmp_path):
    shape, rows = (8, 8, 128), 20_000
    size = 2 * rows * math.prod(shape)
    metadata = {"dtype": "float16", "shape": shape, "shard_rows": [rows] * 2}
    metadata |= {"format": 1, "channel_mean": [0] * 128, "channel_std": [1] * 128}
    (tmp_path / "feature_maps.json").write_text(json.dumps(metadata))
    images = pd.DataFrame({"key": range(2 * rows), "row": range(2 * rows)})
    images.to_parquet(tmp_path / "images.parquet")
    for shard in range(2):
        # Of zeros, which take no room on the disk.
        with open(tmp_path / f"feature_maps-{shard:05d}-of-00002.f16", "wb") as file:
            file.truncate(size)
    before = _private_bytes()
    store, wanted = FeatureMapStore.open(tmp_path), [1, rows, rows + 1, 2 * rows]
    dataset = tf.data.Dataset.from_tensors(np.asarray(wanted)).map(store.gather)
    for maps in (store.gather(tf.constant(wanted, tf.int64)), *dataset):
        assert maps.shape == (4, *shape)
    assert _private_bytes() - before < size / 4


def test_pickled_after_use(sharded):
    store, rows = FeatureMapStore.open(sharded[0]), tf.constant([3, 0, 1], tf.int64)
    maps = store.gather(rows)
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.gather(rows), maps)


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


@pytest.mark.parametrize("file", [*range(5), "scales-00002-of-00005.f16"])
def test_check_names_the_shard_that_differs(sharded, quantized, tmp_path, file):
    source = sharded[0] if isinstance(file, int) else quantized
    if isinstance(file, int):
        file = f"feature_maps-{file:05d}-of-00005.f16"
    path = tmp_path / "maps"
    shutil.copytree(source, path)
    FeatureMapStore.open(path).check()
    content = bytearray((path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (path / file).write_bytes(content)
    # Opening does not read the maps.
    store = FeatureMapStore.open(path)
    with pytest.raises(InputError, match=file):
        store.check()


@pytest.mark.parametrize(("found", "said"), [(None, "unknown"), (2, "2")])
def test_another_format_is_refused(sharded, tmp_path, found, said):
    metadata = json.loads((sharded[0] / "feature_maps.json").read_text())
    assert metadata.pop("format") == 1
    if found is not None:
        metadata["format"] = found
    (tmp_path / "feature_maps.json").write_text(json.dumps(metadata))
    message = (
        rf"feature_maps.json: format {said}, this package reads 1; make it anew with "
        "python -m tfrecords_tools.extract_feature_maps$"
    )
    with pytest.raises(InputError, match=message):
        FeatureMapStore.open(tmp_path)


def test_a_store_without_checksums(sharded, tmp_path):
    path = tmp_path / "maps"
    shutil.copytree(sharded[0], path)
    metadata = json.loads((path / "feature_maps.json").read_text())
    del metadata["crc32"]
    (path / "feature_maps.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="crc32"):
        FeatureMapStore.open(path).check()


def test_pooled_maps_of_a_store_with_a_flipped_bit(sharded, tmp_path):
    path = tmp_path / "maps"
    shutil.copytree(sharded[0], path)
    shard = sorted(path.glob("*.f16"))[-1]
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match=shard.name):
        PooledMaps(FeatureMapStore.open(path))


@pytest.mark.parametrize(
    "damage", ["truncate", "remove", "json", "text", "list", "dtype", "parquet"]
)
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
        "list": path / "feature_maps.json",
        "dtype": path / "feature_maps.json",
        "parquet": path / "images.parquet",
    }[damage]
    if damage in ("text", "list"):
        file.write_text({"text": "{", "list": "[1]"}[damage])
    elif damage == "dtype":
        file.write_text(file.read_text().replace('"float16"', '"float8"'))
    elif damage != "truncate":
        file.unlink()
    with pytest.raises(InputError, match=file.name):
        FeatureMapStore.open(path)
