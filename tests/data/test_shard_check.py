"""Damage of a feature-map store is found wherever its maps are read."""

import json
import shutil
import threading
import zlib

import numpy as np
import pytest

from hccm_tf import CTREstimator
from hccm_tf.data import shard_check
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.shard_check import BackgroundCheck, checked
from hccm_tf.errors import InputError
from tests.conftest import tiny


@pytest.fixture
def maps(shop, tmp_path):
    """A copy of the shop's feature maps."""
    shutil.copytree(shop.maps, tmp_path / "maps")
    return tmp_path / "maps"


def _edit(maps, **changes):
    path = maps / "feature_maps.json"
    metadata = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(metadata))


def _shard(maps):
    return next(maps.glob("*.f16"))


def _flip(maps):
    content = bytearray(_shard(maps).read_bytes())
    content[1000:1400] = bytes(255 - value for value in content[1000:1400])
    _shard(maps).write_bytes(content)


def _put_nan(maps):
    """One value that is none, under a checksum that fits."""
    values = np.fromfile(_shard(maps), np.float16)
    values[len(values) // 2] = np.nan
    values.tofile(_shard(maps))
    _edit(maps, crc32={_shard(maps).name: zlib.crc32(values)})


DAMAGES = {"checksum": _flip, "no finite numbers": _put_nan}


@pytest.mark.parametrize("found", DAMAGES)
def test_damaged_maps_do_not_train(shop, maps, found):
    DAMAGES[found](maps)
    options = tiny("hcm", epochs=1, batch_size=512, learning_rate=0.0)
    with pytest.raises(InputError, match=f"{_shard(maps).name}: .*{found}"):
        CTREstimator("hcm", maps, **options).fit(shop.data)


def test_damage_after_the_training_is_found_too(shop, maps, fitted, tmp_path):
    """Where maps are read without training: predictions, exports and pages."""
    fitted["hccm"].save(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace(str(shop.maps), str(maps)))
    _flip(maps)
    estimator = CTREstimator.load(tmp_path / "run")
    for use in (
        lambda: estimator.predict_proba(shop.data),
        lambda: estimator.export(tmp_path / "model"),
        lambda: estimator.explain(shop.data, tmp_path / "page", shop.images, 1),
    ):
        with pytest.raises(InputError, match="checksum"):
            use()
    assert not list(tmp_path.glob("model/*")) and not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("channel_std", lambda values: [0.0, *values[1:]]),
        ("channel_std", lambda values: [-values[0], *values[1:]]),
        ("channel_std", lambda values: [float("nan"), *values[1:]]),
        ("channel_mean", lambda values: [float("inf"), *values[1:]]),
        ("channel_mean", lambda values: [values[0] + 1, *values[1:]]),
        ("channel_mean", lambda values: values[1:]),
        ("channel_mean", lambda values: None),
        ("channel_std", lambda values: "abc"),
    ],
)
def test_impossible_moments(shop, maps, name, change):
    _edit(maps, **{name: change(shop.store.metadata[name])})
    with pytest.raises(InputError, match="feature_maps.json"):
        FeatureMapStore.open(maps)
    # Without the sums that they come from, all but a plausible value is found.
    if name == "channel_std":
        metadata = json.loads((maps / "feature_maps.json").read_text())
        del metadata["moments"]
        (maps / "feature_maps.json").write_text(json.dumps(metadata))
        with pytest.raises(InputError, match="feature_maps.json"):
            FeatureMapStore.open(maps)


def test_a_file_is_read_once(maps, monkeypatch):
    store, read = FeatureMapStore.open(maps), []
    check_file = shard_check.check_file

    def record(*arguments):
        read.append(arguments[0].name)
        check_file(*arguments)

    monkeypatch.setattr(shard_check, "check_file", record)
    # Rows of no image need no file.
    store.check_once([0])
    assert read == []
    store.check_once([0, 1])
    FeatureMapStore.open(maps).check_once()
    assert read == [_shard(maps).name]
    # What changed meanwhile is another file.
    _flip(maps)
    with pytest.raises(InputError, match="checksum"):
        store.check_once([1])


class _Store:
    """Is checked when `go` is set, and is damaged."""

    def __init__(self):
        self.go = threading.Event()

    def check_once(self):
        self.go.wait()
        raise InputError("damage")


def test_the_check_goes_on_beside_what_reads():
    store = _Store()
    check = BackgroundCheck(store)
    check.raise_if_damaged()
    store.go.set()
    with pytest.raises(InputError, match="damage"):
        check.wait()
    # Damage explains what it led to, and nothing else.
    with pytest.raises(InputError, match="damage"), checked(store):
        raise FloatingPointError
    with pytest.raises(KeyError), checked(_Store()):
        raise KeyError
    with checked(None):
        pass
