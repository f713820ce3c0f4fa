"""The images of a run: where they may be, and who reads them."""

import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.configuration import configure
from hccm_tf.errors import InputError
from hccm_tf.run_folder import RunFolder
from hccm_tf.training.images import open_images


def _open(shop, options=(), **folders):
    given = {"image_size": 32, "cnn_weights": "random", **dict(options)}
    folders = {"data_dir": shop.data, "image_dir": shop.images, **folders}
    return open_images(configure("cscnn", given, **folders), shop.schema)[0]


def test_images_that_are_links_out_of_the_folder(shop, tmp_path, capsys):
    """As a tool that keeps files by their checksums leaves a folder."""
    for path in shop.images.iterdir():
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(InputError, match="^image_dir=.*: it holds 0 of the"):
        _open(shop, image_dir=tmp_path)
    store = _open(shop, {"allow_links": True}, image_dir=tmp_path)
    assert (store.keys == _open(shop).keys).all() and len(store.keys) > 20
    printed = capsys.readouterr().out
    # The line of the shop's two bad images says what is wrong with one.
    assert "missing or not decodable, such as " in printed
    assert "no such file" in printed or "cannot be decoded" in printed


def test_pixels_for_the_workers_of_parameter_servers(shop, tmp_path):
    with pytest.raises(InputError, match="^run_dir: model cscnn needs it"):
        _open(shop, strategy="parameter_server")
    store = _open(shop, strategy="parameter_server", run_dir=tmp_path)
    pixels = np.fromfile(RunFolder(tmp_path).pixels, np.uint8)
    rows = tf.range(len(store.keys) + 1, dtype=tf.int64)
    np.testing.assert_array_equal(pixels, store.gather(rows).numpy().ravel())
