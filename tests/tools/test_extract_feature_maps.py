import json

import keras
import numpy as np
import pandas as pd
import pytest

from hccm_tf import CTREstimator
from hccm_tf.errors import InputError
from tests.conftest import MAPS, TINY
from tests.reference import read_maps
from tfrecords_tools import extract_feature_maps as tool


@pytest.fixture(scope="module")
def names(shop):
    unreadable = set(pd.read_csv(shop.maps / "skipped.csv").image)
    paths = sorted(shop.images.iterdir())
    return [path.name for path in paths if path.name not in unreadable][:12]


def _extract(shop, names, path, **changes):
    tool.extract_feature_maps(names, shop.images, path, **{**MAPS, **changes})


def test_missing_and_corrupt_images_are_reported(shop):
    skipped = pd.read_csv(shop.maps / "skipped.csv").set_index("image").reason
    missing = [name for name in skipped.index if not (shop.images / name).exists()]
    corrupt = [name for name in skipped.index if (shop.images / name).exists()]
    assert len(missing) == len(corrupt) == 1
    assert skipped[missing[0]] == "no such file"
    assert "cannot be decoded" in skipped[corrupt[0]]
    wanted = set(shop.items.image) - {""}
    assert set(read_maps(shop.maps)) == wanted - set(skipped.index)
    assert shop.store.metadata["count"] == len(wanted) - 2


def test_random_weights_are_no_zero_function(shop):
    maps = np.stack(list(read_maps(shop.maps).values())).astype(np.float64)
    assert maps.std() > 1e-3
    # Images differ from each other, not only positions and channels.
    assert maps.std(axis=0).mean() > 1e-3


def test_a_resumed_run_keeps_the_shards_it_has(shop, names, tmp_path, monkeypatch):
    path = tmp_path / "maps"
    monkeypatch.setattr(tool, "SHARD_ROWS", 5)
    write_shard, calls = tool._write_shard, []

    def interrupted(*arguments):
        calls.append(arguments[0])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write_shard(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tool, "_write_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _extract(shop, names, path)
    assert not path.exists()
    incomplete = tmp_path / "maps.incomplete"
    first = incomplete / "feature_maps-00000-of-00003.f16"
    stamp, content = first.stat().st_mtime_ns, first.read_bytes()
    with pytest.raises(InputError, match="image_size"):
        _extract(shop, names, path, image_size=40)
    _extract(shop, names, path)
    assert not incomplete.exists()
    first = path / first.name
    assert (first.stat().st_mtime_ns, first.read_bytes()) == (stamp, content)
    assert set(read_maps(path)) == set(names)
    # One and the same backbone: the same image in another shard has the same map.
    weights = path / "backbone.weights.h5"
    model = tool.load_backbone(MAPS["backbone"], "random", 33, MAPS["layer"])
    model.load_weights(weights)
    for name in (names[0], names[-1]):
        pixels, _ = tool.decode_image(shop.images / name, 33)
        expected = model(pixels[None].astype(np.float32), training=False)[0]
        np.testing.assert_allclose(
            read_maps(path)[name], expected, rtol=0.01, atol=0.01
        )


def test_weights_of_a_file(shop, names, tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNetV3Small(
        input_shape=(33, 33, 3), include_top=False, weights=None
    )
    model.save_weights(tmp_path / "w.weights.h5")
    for name in ("one", "two"):
        _extract(shop, names, tmp_path / name, weights=str(tmp_path / "w.weights.h5"))
    one, two = (read_maps(tmp_path / name) for name in ("one", "two"))
    assert all((one[name] == two[name]).all() for name in names)


def test_failed_download_names_what_to_do(shop, names, tmp_path, monkeypatch):
    def fail(**_):
        raise OSError("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNetV3Small", fail)
    with pytest.raises(InputError, match="(?s)URL.*--weights=PATH.*--weights=random"):
        _extract(shop, names, tmp_path / "maps", weights="imagenet")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "no_such_layer"}, "--layer.*no_such_layer"),
        ({"weights": "/no/such/file"}, "--weights.*/no/such/file"),
        ({"backbone": "VGG99"}, "--backbone.*VGG99"),
    ],
)
def test_a_wrong_flag_leaves_nothing_in_the_way(
    shop, names, tmp_path, changes, message
):
    with pytest.raises(InputError, match=message):
        _extract(shop, names, tmp_path / "maps", **changes)
    assert not (tmp_path / "maps").exists()
    _extract(shop, names, tmp_path / "maps")
    assert json.loads((tmp_path / "maps" / "feature_maps.json").read_text())["count"]


def test_no_readable_image(shop, tmp_path):
    with pytest.raises(InputError, match="readable"):
        _extract(shop, ["none.jpg", "nowhere.jpg"], tmp_path / "maps")
    with pytest.raises(InputError, match="image_dir"):
        tool.extract_feature_maps(["a"], tmp_path / "none", tmp_path / "maps", **MAPS)


def test_existing_folder(shop, names):
    with pytest.raises(InputError, match="exists already"):
        _extract(shop, names, shop.maps)


def test_store_of_another_catalogue(shop, names, tmp_path):
    _extract(shop, names, tmp_path / "maps")
    estimator = CTREstimator("hcm", tmp_path / "maps", model_options=TINY)
    with pytest.raises(InputError, match="--feature_maps.*do not belong together"):
        estimator.fit(shop.data)
    with pytest.raises(InputError, match="--feature_maps"):
        CTREstimator("hcm").fit(shop.data)
