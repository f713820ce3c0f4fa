"""Stores by a user's own `.keras` file, and by other CNNs of `keras.applications`."""

import json
import shutil

import keras
import numpy as np
import pytest

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.errors import InputError
from hccm_tf.images.read import decode_image
from hccm_tf.models.backbones import load_backbone
from hccm_tf.preparation.feature_maps import fixed_cnn
from hccm_tf.preparation.feature_maps.extract import extract_feature_maps
from tests.reference import read_maps

SIZE = 24


def _network(size=None, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(5, 3, strides=8, name="conv"),
            keras.layers.ReLU(name="maps"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(4, name="vector"),
        ]
    )


@pytest.fixture(scope="module")
def network():
    return _network()


@pytest.fixture
def file(network, tmp_path):
    path = tmp_path / "mine.keras"
    network.save(path)
    return path


@pytest.fixture(scope="module")
def names(shop):
    return sorted(read_maps(shop.maps))[:5]


def _pixels(shop, names, size=SIZE):
    pixels = [decode_image(name, shop.images, size)[0] for name in names]
    return np.stack(pixels).astype(np.float32)


def _check(store, names, expected):
    maps = read_maps(store)
    assert set(maps) == set(names)
    for name, value in zip(names, np.asarray(expected), strict=True):
        np.testing.assert_allclose(maps[name], value, rtol=2e-3, atol=2e-3)
    assert np.stack(list(maps.values())).std(0).max() > 1e-3


@pytest.mark.parametrize("layer", ["maps", None])
def test_each_image_has_its_map(shop, names, network, file, tmp_path, capsys, layer):
    extract_feature_maps(
        names, shop.images, tmp_path / "maps", backbone=file, layer=layer, image_size=24
    )
    pixels = _pixels(shop, names)
    if layer is None:
        expected = network(pixels)[:, None, None]
        assert "layer=vector: after it mine.keras" in capsys.readouterr().out
    else:
        expected = keras.Model(network.inputs, network.get_layer(layer).output)(pixels)
    _check(tmp_path / "maps", names, expected)
    metadata = json.loads((tmp_path / "maps" / "feature_maps.json").read_text())
    assert metadata["backbone"] == "mine.keras" and str(tmp_path) not in str(metadata)


def test_extend_without_the_file(shop, names, network, file, tmp_path):
    told = {"backbone": str(file), "layer": "maps", "image_size": SIZE}
    extract_feature_maps(names[:3], shop.images, tmp_path / "old", **told)
    copy = shutil.copy(file, tmp_path / "copy.keras")
    file.unlink()
    fixed_cnn._encoders.clear()
    extend = {"image_dir": shop.images, "extend": tmp_path / "old"}
    extract_feature_maps(names, output_dir=tmp_path / "new", **extend)
    part = keras.Model(network.inputs, network.get_layer("maps").output)
    _check(tmp_path / "new", names, part(_pixels(shop, names)))
    stores = [FeatureMapStore.open(tmp_path / name) for name in ("old", "new")]
    assert stores[0].cnn == stores[1].cnn
    # The same file under any name, and no other one.
    extract_feature_maps(names, output_dir=tmp_path / "same", backbone=copy, **extend)
    _network(seed=1).save(copy)
    for backbone in (copy, tmp_path / "none.keras", "MobileNetV3Small"):
        with pytest.raises(InputError, match="^backbone=.*contradicts.*mine.keras"):
            extract_feature_maps(
                names, output_dir=tmp_path / "other", backbone=backbone, **extend
            )
    extract_feature_maps(
        names, shop.images, tmp_path / "other", **told | {"backbone": copy}
    )
    assert FeatureMapStore.open(tmp_path / "other").cnn != stores[0].cnn


def test_a_file_knows_its_size(shop, names, tmp_path):
    _network(40).save(tmp_path / "m.keras")
    told = {"backbone": tmp_path / "m.keras", "layer": "maps"}
    extract_feature_maps(names, shop.images, tmp_path / "maps", **told)
    store = FeatureMapStore.open(tmp_path / "maps")
    assert store.metadata["image_size"] == 40 and store.shape == (5, 5, 5)
    with pytest.raises(InputError, match="^image_size=24: .*m.keras takes"):
        extract_feature_maps(names, shop.images, tmp_path / "x", **told, image_size=24)


def _with_code(marker):
    def run(x):
        open(marker, "w").close()
        return x

    pixels = keras.Input((24, 24, 3))
    return keras.Model(pixels, keras.layers.Lambda(run)(pixels))


def _of_two_inputs():
    inputs = [keras.Input((24, 24, 3)) for _ in range(2)]
    return keras.Model(inputs, keras.layers.add(inputs))


def test_no_code_of_a_file_runs(shop, names, tmp_path):
    marker = tmp_path / "it ran"
    _with_code(str(marker)).save(tmp_path / "m.keras")
    marker.unlink(missing_ok=True)
    with pytest.raises(InputError, match="^backbone: .*m.keras is no "):
        extract_feature_maps(
            names, shop.images, tmp_path / "x", backbone=tmp_path / "m.keras"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


def test_a_model_within_a_model(shop, names, network, tmp_path):
    pixels = keras.Input((SIZE, SIZE, 3))
    inner = keras.Sequential([network.get_layer(n) for n in ("conv", "maps")])
    outer = keras.Model(pixels, inner(keras.layers.Rescaling(1 / 255)(pixels)))
    outer.save(tmp_path / "outer.keras")
    extract_feature_maps(
        names, shop.images, tmp_path / "maps", backbone=tmp_path / "outer.keras"
    )
    expected = outer(_pixels(shop, names))
    _check(tmp_path / "maps", names, expected)


def test_what_is_wrong_is_named(shop, names, file, tmp_path):
    _of_two_inputs().save(tmp_path / "two.keras")
    pixels = keras.Input((24, 24, 1))
    keras.Model(pixels, pixels * 2).save(tmp_path / "grey.keras")
    pixels = keras.Input((24, 24, 3))
    keras.Model(pixels, keras.layers.Reshape((-1, 3))(pixels)).save(
        tmp_path / "tokens.keras"
    )
    (tmp_path / "text.keras").write_text("no network")
    for name, changes, message in (
        ("none.keras", {}, "^backbone: no such file.*none.keras"),
        ("text.keras", {}, "^backbone: .*text.keras is no"),
        ("two.keras", {}, "^backbone: .*two.keras: no functional.*2 inputs"),
        ("grey.keras", {}, "^backbone: .*grey.keras: .*24, 24, 1"),
        ("tokens.keras", {}, "^layer=.*tokens.keras, gives neither.*576, 3"),
        ("mine.keras", {"layer": "x"}, "^layer: mine.keras has .*'conv'.*Received: x"),
        ("mine.keras", {"weights": "random"}, "^weights=random.*of its own"),
        ("mine.keras", {"seed": 1}, "^seed=1.*of its own"),
    ):
        with pytest.raises(InputError, match=message):
            extract_feature_maps(
                names, shop.images, tmp_path / "x", backbone=tmp_path / name, **changes
            )
        assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [
        ("EfficientNetV2B0", "block2b_add"),
        ("ConvNeXtTiny", "convnext_tiny_downsampling_block_0"),
    ],
)
def test_others_of_keras_applications(shop, names, tmp_path, backbone, layer):
    told = {"backbone": backbone, "weights": "random", "layer": layer, "image_size": 32}
    extract_feature_maps(names, shop.images, tmp_path / "maps", **told)
    # The statistics are estimated from the images, where there are any.
    model = load_backbone(backbone, "random", 32, layer)
    model.load_weights(tmp_path / "maps" / "backbone.weights.h5")
    _check(tmp_path / "maps", names, model(_pixels(shop, names, 32), training=False))
