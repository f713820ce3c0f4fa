"""The images of a run: where they may be, and who reads them."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.configuration import configure
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.errors import InputError
from hccm_tf.run_folder import RunFolder
from hccm_tf.training.fit import fit
from hccm_tf.training.images import open_images


def _open(shop, options=(), **folders):
    given = {"image_size": 32, "cnn_weights": "random", **dict(options)}
    folders = {"data_dir": shop.data, "image_dir": shop.images, **folders}
    return open_images(configure("cscnn", given, **folders), shop.schema)[0]


def test_images_that_are_links_out_of_the_folder(shop, tmp_path, capsys):
    """As a tool that keeps files by their checksums leaves a folder."""
    for path in shop.images.iterdir():
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(InputError, match="^image_dir=.*: 58 of the 58.* allow_links"):
        _open(shop, image_dir=tmp_path)
    with pytest.raises(InputError, match="^image_dir=.*nowhere: no such folder"):
        _open(shop, image_dir=tmp_path / "nowhere")
    store = _open(shop, {"allow_links": True}, image_dir=tmp_path)
    assert (store.keys == _open(shop).keys).all() and len(store.keys) > 20
    printed = capsys.readouterr().out
    # The line of the shop's two bad images says what is wrong with one.
    assert "missing or not decodable, such as " in printed
    assert "no such file" in printed or "cannot be decoded" in printed


def test_images_without_a_feature_map_are_listed(shop, tmp_path, capsys):
    def printed(maps):
        configuration = configure("hccm", {}, data_dir=shop.data, feature_maps=maps)
        open_images(configuration, shop.schema)
        return capsys.readouterr().out

    says = "2 of 58 images have no feature map"
    skipped = shop.maps / "skipped.csv"
    assert len(pd.read_csv(skipped)) == 2
    names = f"; {skipped} names those that could not be read\n"
    assert printed(shop.maps) == says + names
    shutil.copytree(shop.maps, tmp_path / "maps")
    skipped = tmp_path / "maps" / "skipped.csv"
    skipped.write_text(skipped.read_text().splitlines(keepends=True)[0])
    assert printed(tmp_path / "maps") == f"{says}\n"
    # As a copy from an object store is.
    skipped.unlink()
    assert printed(tmp_path / "maps") == f"{says}\n"


def test_pixels_for_the_workers_of_parameter_servers(shop, tmp_path):
    with pytest.raises(InputError, match="^run_dir: model cscnn needs it"):
        _open(shop, strategy="parameter_server")
    store = _open(shop, strategy="parameter_server", run_dir=tmp_path)
    pixels = np.fromfile(RunFolder(tmp_path).pixels, np.uint8)
    rows = tf.range(len(store.keys) + 1, dtype=tf.int64)
    np.testing.assert_array_equal(pixels, store.gather(rows).numpy().ravel())


def test_a_run_whose_images_lack_one_predicts_its_data(shop, monkeypatch):
    """As where two images' names have one key."""

    def without_the_first(store, keys, names):
        return dataclasses.replace(store, keys=store.keys[1:], rows=store.rows[1:])

    monkeypatch.setattr(FeatureMapStore, "with_names", without_the_first)
    folders = {"data_dir": shop.data, "feature_maps": shop.maps}
    fitted = fit(configure("din_fixed_cnn", {"epochs": 1}, **folders))
    expected = (shop.log.split == "test").sum()
    assert len(fitted.predictions("test", shop.data)) == expected
