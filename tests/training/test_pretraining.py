"""What the CNN of `cscnn` starts from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.configuration import configure
from hccm_tf.errors import InputError
from hccm_tf.training.pretraining import check_pretraining, load_cnn_weights, pretrain
from tests.models.pixels import SHAPE, build, define


def test_weights_of_a_file(tmp_path):
    backbone = keras.applications.MobileNetV3Small(
        SHAPE, include_top=False, weights=None
    )
    for weight in backbone.weights:
        weight.assign(weight + 0.5)
    backbone.save_weights(tmp_path / "cnn.weights.h5")
    model = build()
    cnn = model.get_layer("image_encoder").get_layer("cnn")
    own = [w for w in cnn.weights if "attention" in w.path or "prior" in w.path]
    before = [np.array(weight) for weight in own]
    definition = define(cnn_weights=str(tmp_path / "cnn.weights.h5"))
    load_cnn_weights(model, definition)
    loaded = 0
    for layer in cnn.layers:
        if layer.weights and layer.name in {entry.name for entry in backbone.layers}:
            for a, b in zip(
                layer.weights, backbone.get_layer(layer.name).weights, strict=True
            ):
                np.testing.assert_array_equal(a, b)
                loaded += 1
    assert loaded + len(own) == len(cnn.weights)
    for weight, old in zip(own, before, strict=True):
        np.testing.assert_array_equal(weight, old)


class _Painted:
    """A store of pixels whose colour tells the category."""

    shape = SHAPE

    def __init__(self, pixels):
        self.pixels = tf.constant(pixels)

    def find(self, keys):
        return tf.constant(keys)

    def gather(self, rows):
        return tf.gather(self.pixels, rows)


def test_pretraining_learns_the_categories_and_is_not_told_them():
    count = 120
    rng = np.random.default_rng(0)
    category = rng.integers(2, 5, count).astype(np.int32)
    pixels = rng.integers(0, 60, (count + 1, *SHAPE)).astype(np.uint8)
    for row, kind in enumerate(category, 1):
        pixels[row, :, :, kind - 2] += 180
    keys = np.arange(1, count + 1)
    model = build()
    priors = [w for w in model.weights if "_prior" in w.path]
    before = [np.array(weight) for weight in priors]
    arguments = ((keys, category), 4, 3e-3, 0)
    assert pretrain(model, _Painted(pixels), *arguments) > 0.9
    for weight, old in zip(priors, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    # Without anything to see there is nothing to learn, category attention or not.
    blank = np.full_like(pixels, 128)
    assert pretrain(build(), _Painted(blank), *arguments) < 0.6


def test_workers_do_not_pretrain_each_for_itself():
    cluster = {"data_dir": "DATA", "strategy": "multi_worker_mirrored"}
    with pytest.raises(InputError, match="pretrain_epochs: .*warm_start_from"):
        check_pretraining(configure("cscnn", {"pretrain_epochs": 1}, **cluster))
    for model, given, more in (
        ("cscnn", {}, {}),
        ("hccm", {}, {}),
        ("cscnn", {"pretrain_epochs": 1}, {"warm_start_from": "RUN"}),
        ("cscnn", {"pretrain_epochs": 1}, {"strategy": "parameter_server"}),
    ):
        check_pretraining(configure(model, given, **{**cluster, **more}))
