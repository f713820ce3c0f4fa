import errno
import functools
import http.server
import json
import os
import pathlib
import pickle
import shutil
import signal
import threading
import time
import types

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf import CTREstimator
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.errors import InputError
from hccm_tf.images import read
from hccm_tf.images.read import decode_image
from hccm_tf.models.backbones import load_backbone
from hccm_tf.preparation.feature_maps import assembly as feature_map_assembly
from hccm_tf.preparation.feature_maps import fixed_cnn as backbones
from hccm_tf.preparation.feature_maps import settings as feature_map_settings
from hccm_tf.preparation.feature_maps import shards as feature_map_shards
from hccm_tf.preparation.feature_maps.extract import (
    extract_feature_maps,
    new_images,
)
from hccm_tf.preparation.feature_maps.fixed_cnn import estimate_normalization
from hccm_tf.preparation.feature_maps.shards import Encoding, write_shard
from tests import processes
from tests.conftest import MAPS, tiny
from tests.reference import COLLIDING, fingerprint, read_maps

ROOT = pathlib.Path(__file__).parents[3]
SHARD_ROWS, BATCH_SIZE = 4, 3


@pytest.fixture(scope="module")
def names(shop):
    unreadable = set(pd.read_csv(shop.maps / "skipped.csv").image)
    paths = sorted(shop.images.iterdir())
    return [path.name for path in paths if path.name not in unreadable][:14]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(feature_map_settings, "SHARD_ROWS", SHARD_ROWS)
    monkeypatch.setattr(feature_map_shards, "BATCH_SIZE", BATCH_SIZE)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNetV3Small(
        input_shape=(33, 33, 3), include_top=False, weights=None
    )
    estimate_normalization(
        model, np.random.default_rng(1).uniform(0, 255, (8, 33, 33, 3))
    )
    path = tmp_path_factory.mktemp("weights") / "w.weights.h5"
    model.save_weights(path)
    return str(path)


@pytest.fixture
def photos(shop, names, tmp_path):
    """A folder of its own with the images of `names`."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in names:
        shutil.copy(shop.images / name, folder)
    return folder


def _extract(shop, names, path, **changes):
    extract_feature_maps(names, shop.images, path, **{**MAPS, **changes})


def _bytes(store):
    """Content of a store's files, without the weights: HDF5 holds the time."""
    return {
        path.name: path.read_bytes()
        for path in store.iterdir()
        if path.name != "backbone.weights.h5"
    }


def _inodes(paths):
    return [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]


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


def test_the_last_line_names_the_file_of_skipped_images(shop, names, tmp_path, capsys):
    maps = tmp_path / "maps"
    for images, says in (
        (["none.jpg"], f"1 images skipped, see {maps / 'skipped.csv'} -> {maps}"),
        ([], f"0 images skipped -> {maps}"),
    ):
        _extract(shop, [*names[:2], *images], maps)
        assert capsys.readouterr().out.splitlines()[-1].endswith(f", {says}")
        shutil.rmtree(maps)


def test_random_weights_need_an_image(shop, tmp_path):
    with pytest.raises(InputError, match="readable image; none.jpg: no such file"):
        _extract(shop, ["none.jpg", "no.jpg"], tmp_path / "maps")
    with pytest.raises(InputError, match="readable image$"):
        _extract(shop, [], tmp_path / "maps")


def test_random_weights_are_no_zero_function(shop):
    maps = np.stack(list(read_maps(shop.maps).values())).astype(np.float64)
    assert maps.std() > 1e-3
    # Images differ from each other, not only positions and channels.
    assert maps.std(axis=0).mean() > 1e-3


def test_each_image_has_its_map(shop, names, tmp_path):
    _extract(shop, ["none.jpg", *names], tmp_path / "maps")
    maps = read_maps(tmp_path / "maps")
    assert set(maps) == set(names)
    model = load_backbone(MAPS["backbone"], "random", 33, MAPS["layer"])
    model.load_weights(tmp_path / "maps" / "backbone.weights.h5")
    for name in names:
        pixels, _ = decode_image(name, shop.images, 33)
        expected = model(pixels[None].astype(np.float32), training=False)[0]
        np.testing.assert_allclose(maps[name], expected, rtol=0.01, atol=0.01)


def test_the_store_does_not_know_where_it_was_made(shop, names, tmp_path):
    _extract(shop, names, tmp_path / "maps")
    assert not (tmp_path / "maps" / "work").exists()
    for content in _bytes(tmp_path / "maps").values():
        assert str(tmp_path).encode() not in content
        assert str(shop.images).encode() not in content


def _child(arguments, gate, reached):
    """Extracts, and at the image `gate` makes a file `reached` and waits for ever."""
    feature_map_settings.SHARD_ROWS = SHARD_ROWS
    feature_map_shards.BATCH_SIZE = BATCH_SIZE
    decode = read.decode_image

    def decode_or_wait(image, *others, **allowed):
        if image == gate:
            reached.touch()
            threading.Event().wait()
        return decode(image, *others, **allowed)

    read.decode_image = decode_or_wait
    extract_feature_maps(**arguments)


def _wait_for(path, process):
    end = time.monotonic() + 120
    while not path.exists():
        assert process.is_alive() and time.monotonic() < end
        time.sleep(0.005)


def test_killed_again_and_again(names, photos, weights, tmp_path):
    context = processes.server()
    arguments = {
        **MAPS,
        "images": [names[0], "none.jpg", *names[1:]],
        "image_dir": photos,
        "output_dir": tmp_path / "maps",
        "weights": weights,
        "dtype": "int8",
    }
    extract_feature_maps(**{**arguments, "output_dir": tmp_path / "whole"})
    work = tmp_path / "maps.incomplete" / "work"
    finished = {}
    for done in (None, 0, 1, 3):
        # The run waits in the middle of a shard, for an image that never comes.
        gate = None if done is None else arguments["images"][done * SHARD_ROWS + 2]
        reached = tmp_path / f"reached {gate}"
        process = context.Process(target=_child, args=(arguments, gate, reached))
        process.start()
        # Once before the first image is asked for.
        _wait_for(work.parent if done is None else reached, process)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "maps").exists()
        if done is not None:
            shards = sorted(path.name for path in work.glob("shard-*"))
            assert shards == [f"shard-{shard:05d}" for shard in range(done)]
            # What the runs before left of shards that they were about is gone.
            assert len(list(work.iterdir())) == len(shards) + 3
            files = {shard: sorted((work / shard).glob("[01]")) for shard in shards}
            for shard, before in finished.items():
                assert _inodes(files[shard]) == before
            finished = {shard: _inodes(found) for shard, found in files.items()}
    extract_feature_maps(**arguments)
    assert not work.parent.exists()
    store = FeatureMapStore.open(tmp_path / "maps")
    for files, before in zip(store.shards, finished.values(), strict=False):
        assert _inodes(files) == before
    assert len(finished) == 3
    assert _bytes(tmp_path / "maps") == _bytes(tmp_path / "whole")
    store.check()


def test_a_shard_that_fails_leaves_nothing(shop, names, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_map_shards, "publish", fail)
    for _ in range(2):
        with pytest.raises(InputError, match="the disk is full"):
            _extract(shop, names, tmp_path / "maps")
        work = tmp_path / "maps.incomplete" / "work"
        assert {path.name for path in work.iterdir()} == {
            "images.parquet",
            "settings.json",
        }


def test_interrupted_while_files_are_put_in_place(
    shop, names, weights, tmp_path, monkeypatch
):
    _extract(shop, names[:5], tmp_path / "old", weights=weights)
    old = _bytes(tmp_path / "old")
    extend = {"extend": tmp_path / "old", "weights": weights}
    _extract(shop, names, tmp_path / "whole", **extend)
    seen, runs = set(), 0

    def interruptible(function):
        def call(source, target):
            if target not in seen:
                seen.add(target)
                raise KeyboardInterrupt
            return function(source, target)

        return call

    monkeypatch.setattr(os, "link", interruptible(os.link))
    for name in ("replace", "rename"):
        method = interruptible(getattr(pathlib.Path, name))
        monkeypatch.setattr(pathlib.Path, name, method)
    while not (tmp_path / "maps").exists():
        runs += 1
        try:
            _extract(shop, names, tmp_path / "maps", **extend)
        except KeyboardInterrupt:
            assert not (tmp_path / "maps").exists()
    # Weights, settings, 3 shards, their files and 2 old ones, the folder.
    assert runs == 1 + 1 + 3 + 3 + 2 + 1 + 1
    assert _bytes(tmp_path / "maps") == _bytes(tmp_path / "whole")
    assert _bytes(tmp_path / "old") == old


def test_a_resumed_run_has_the_same_settings(shop, names, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(feature_map_assembly, "shard_files", fail)
        with pytest.raises(OSError, match="no answer"):
            _extract(shop, names, tmp_path / "maps")
    for changes in (
        {"image_size": 40},
        {"dtype": "int8"},
        {"max_pixels": 10**6},
        {"allow_links": True},
    ):
        with pytest.raises(InputError, match=next(iter(changes))):
            _extract(shop, names, tmp_path / "maps", **changes)
    with pytest.raises(InputError, match="images"):
        _extract(shop, names[1:], tmp_path / "maps")
    _extract(shop, names, tmp_path / "maps")
    assert set(read_maps(tmp_path / "maps")) == set(names)


def test_extend(names, photos, weights, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    mended, gone = names[2], "gone.jpg"
    content = (photos / mended).read_bytes()
    (photos / mended).write_bytes(b"broken")
    arguments = {**MAPS, "image_dir": photos, "weights": weights, "dtype": "int8"}
    extract_feature_maps([*names[:7], gone], output_dir=old, **arguments)
    assert set(pd.read_csv(old / "skipped.csv").image) == {mended, gone}
    before, stamps = _bytes(old), _inodes(sorted(old.iterdir()))
    # The images of the old store are no more, so nothing of it can be encoded again.
    (photos / mended).write_bytes(content)
    for name in set(names[:7]) - {mended}:
        (photos / name).unlink()
    extract_feature_maps([gone, *names[2:]], photos, new, extend=old)
    assert (_bytes(old), _inodes(sorted(old.iterdir()))) == (before, stamps)
    assert pd.read_csv(new / "skipped.csv").values.tolist() == [[gone, "no such file"]]

    store, was = FeatureMapStore.open(new), FeatureMapStore.open(old)
    store.check()
    table = pd.read_parquet(new / "images.parquet").set_index("image")
    assert set(table.index) == set(names) and store.metadata["count"] == len(names)
    for files, same in zip(store.shards, was.shards, strict=False):
        assert _inodes(files) == _inodes(same)
    kept = pd.read_parquet(old / "images.parquet").set_index("image").row
    assert (table.row[kept.index] == kept).all()
    assert store.metadata["weights_sha256"] == was.metadata["weights_sha256"]
    # The new maps are those of a store that is made at once.
    for name in names:
        if not (photos / name).exists():
            (photos / name).write_bytes(content)
    extract_feature_maps(names, output_dir=tmp_path / "whole", **arguments)
    whole = FeatureMapStore.open(tmp_path / "whole")
    added = table.index[~table.index.isin(kept.index)]
    assert len(added) == 8
    keys = table.key[added].to_numpy()
    maps = [one.gather(one.find(keys)).numpy() for one in (store, whole)]
    np.testing.assert_allclose(*maps, rtol=0.01, atol=0.02)
    assert maps[0].std() > 0.1
    maps = store.gather(table.row.to_numpy() + 1).numpy().astype(np.float64)
    np.testing.assert_allclose(store.channel_mean, maps.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(store.channel_std, maps.std((0, 1, 2)), rtol=1e-6)
    assert not (was.channel_mean == store.channel_mean).any()

    # Nothing can be added, again and again: no empty shards pile up.
    extract_feature_maps([gone, *names], photos, tmp_path / "newer", extend=new)
    extract_feature_maps(names, photos, tmp_path / "newest", extend=tmp_path / "newer")
    assert set(_bytes(tmp_path / "newest")) == set(_bytes(new))
    FeatureMapStore.open(tmp_path / "newest").check()
    assert read_table(tmp_path / "newest") == read_table(new)


def read_table(store):
    return pd.read_parquet(store / "images.parquet").values.tolist()


def test_extend_copies_where_the_disk_cannot_link(shop, names, tmp_path, monkeypatch):
    _extract(shop, names[:6], tmp_path / "old")

    def refuse(*_):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    extract_feature_maps(names, shop.images, tmp_path / "new", extend=tmp_path / "old")
    store = FeatureMapStore.open(tmp_path / "new")
    store.check()
    assert store.metadata["count"] == len(names)
    assert next(iter(store.shards[0])).stat().st_nlink == 1
    assert not list((tmp_path / "new").glob("*.part"))


def test_flags_may_repeat_but_not_contradict_the_old_store(shop, names, tmp_path):
    for changes in (
        {"backbone": "MobileNetV3Large"},
        {"weights": "imagenet"},
        {"image_size": 40},
        {"layer": "expanded_conv_1_add"},
        {"dtype": "int8"},
        {"seed": 1},
    ):
        name, value = next(iter(changes.items()))
        with pytest.raises(InputError, match=f"^{name}={value} contradicts"):
            extract_feature_maps(
                names, shop.images, tmp_path / "maps", extend=shop.maps, **changes
            )
    assert list(tmp_path.iterdir()) == []
    _extract(shop, names, tmp_path / "maps", extend=shop.maps, dtype="float16", seed=0)
    assert set(read_maps(shop.maps)) == set(read_maps(tmp_path / "maps"))


def test_extend_a_store_that_is_none_or_damaged(shop, names, tmp_path):
    path = tmp_path / "maps"
    extend = functools.partial(
        extract_feature_maps, names, shop.images, path, extend=tmp_path / "old"
    )
    with pytest.raises(InputError, match="old/feature_maps.json"):
        extend()
    _extract(shop, names[:5], tmp_path / "old")
    metadata = json.loads((tmp_path / "old" / "feature_maps.json").read_text())
    (tmp_path / "old" / "feature_maps.json").write_text(
        json.dumps({name: metadata[name] for name in metadata if name != "moments"})
    )
    with pytest.raises(InputError, match="^extend=.*old.*moments"):
        extend()
    (tmp_path / "old" / "feature_maps.json").write_text(json.dumps(metadata))
    (tmp_path / "old" / "backbone.weights.h5").write_bytes(b"none")
    backbones._encoders.clear()
    with pytest.raises(InputError, match="backbone.weights.h5.*not the weights"):
        extend()


def test_what_an_interrupted_extension_leaves_does_no_harm(shop, names, tmp_path):
    old = shop.maps / "backbone.weights.h5"
    weights = old.read_bytes()
    (tmp_path / "maps.incomplete").mkdir()
    os.link(old, tmp_path / "maps.incomplete" / old.name)
    _extract(shop, names, tmp_path / "maps", seed=3)
    assert old.read_bytes() == weights
    assert (tmp_path / "maps" / old.name).read_bytes() != weights


def test_a_large_catalogue_has_a_limited_number_of_shards(
    shop, names, tmp_path, monkeypatch
):
    monkeypatch.setattr(feature_map_settings, "MAX_SHARDS", 2)
    _extract(shop, names, tmp_path / "maps")
    store = FeatureMapStore.open(tmp_path / "maps")
    assert store.metadata["shard_rows"] == [7, 7]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_maps_that_overflow(shop, names, weights, tmp_path, monkeypatch, dtype):
    encode = lambda pixels: tf.fill([len(pixels), 5, 5, 24], 1e9)  # noqa: E731
    monkeypatch.setattr(feature_map_shards, "load_encoder", lambda *_: encode)
    with pytest.raises(InputError, match="^layer=.*overflow float16"):
        _extract(shop, names, tmp_path / "maps", dtype=dtype, weights=weights)


def test_images_of_a_server(shop, names, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=shop.images)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        urls = [f"{url}/{name}" for name in [*names, "none.jpg"]]
        extract_feature_maps(
            urls, None, tmp_path / "maps", extend=shop.maps, allow_private_urls=True
        )
        server.shutdown()
        thread.join()
    maps = read_maps(tmp_path / "maps")
    assert set(maps) == set(read_maps(shop.maps)) | set(urls[:-1])
    for name in names:
        np.testing.assert_allclose(maps[f"{url}/{name}"], maps[name], 0.01, 0.01)


def test_failed_download_names_what_to_do(shop, names, tmp_path, monkeypatch):
    @functools.wraps(keras.applications.MobileNetV3Small)
    def fail(**_):
        raise OSError("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNetV3Small", fail)
    with pytest.raises(InputError, match="(?s)^weights=imagenet.*URL.*path of.*random"):
        _extract(shop, names, tmp_path / "maps", weights="imagenet")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "no_such_layer"}, "^layer.*no_such_layer"),
        ({"weights": "/no/such/file"}, "^weights.*/no/such/file"),
        ({"backbone": "VGG99"}, "^backbone.*VGG99"),
    ],
)
def test_a_wrong_flag_leaves_nothing_in_the_way(
    shop, names, tmp_path, changes, message
):
    with pytest.raises(InputError, match=message):
        _extract(shop, names, tmp_path / "maps", **changes)
    assert list(tmp_path.iterdir()) == []
    _extract(shop, names, tmp_path / "maps")
    assert json.loads((tmp_path / "maps" / "feature_maps.json").read_text())["count"]


def test_an_unknown_option(shop, names, tmp_path):
    with pytest.raises(TypeError, match="colour"):
        _extract(shop, names, tmp_path / "maps", colour="red")
    assert list(tmp_path.iterdir()) == []


def test_no_readable_image(shop, weights, tmp_path):
    for changes in ({}, {"weights": weights}):
        with pytest.raises(InputError, match="readable"):
            _extract(shop, ["none.jpg", "no.jpg"], tmp_path / "maps", **changes)
        assert list(tmp_path.iterdir()) == []
    for folder, says in ((tmp_path / "none", "=.*none: no such folder"), (None, ": ")):
        with pytest.raises(InputError, match=f"^image_dir{says}.*a.jpg"):
            extract_feature_maps(["a.jpg"], folder, tmp_path / "maps", **MAPS)


def test_existing_folder(shop, names):
    with pytest.raises(InputError, match="exists already"):
        _extract(shop, names, shop.maps)


def test_the_step_travels_to_workers(tmp_path):
    encoding = Encoding(tmp_path, None, 1, "MobileNetV3Small", 33, "x", "int8", "0")
    step = pickle.loads(pickle.dumps(functools.partial(write_shard, encoding)))
    assert step.args == (encoding,) and step.func is write_shard


def test_what_follows_two_dashes_goes_to_beam(shop, weights, tmp_path):
    command = [
        *("-m", "tfrecords_tools.extract_feature_maps"),
        f"--items={shop.path / 'shop' / 'items.csv'}",
        f"--image_dir={shop.images}",
        f"--output_dir={tmp_path / 'maps'}",
        f"--weights={weights}",
        "--image_size=33",
        *("--", "--runner=NoSuchRunner"),
    ]
    result = processes.run(command, cwd=ROOT)
    assert result.returncode and "NoSuchRunner" in result.stderr


def test_store_of_another_catalogue(shop, names, tmp_path):
    _extract(shop, names, tmp_path / "maps")
    estimator = CTREstimator("hcm", tmp_path / "maps", **tiny("hcm"))
    with pytest.raises(InputError, match="^feature_maps=.*take what has that cat"):
        estimator.fit(shop.data)
    with pytest.raises(InputError, match="^feature_maps: "):
        CTREstimator("hcm").fit(shop.data)


def test_photos_of_one_key(tmp_path, capsys):
    """One of them has a map: of an old store the one that it has."""
    one, other = COLLIDING[0]
    given = [one, "a", other]
    new, names, keys, order = new_images(given, None)
    assert new.tolist() == names.tolist() == [n for n in given if n != max(one, other)]
    assert keys.tolist() == [fingerprint(name) for name in names[order]]
    assert (keys[1:] > keys[:-1]).all()
    warning = f"warning: images: {max(one, other)!r} is no image"
    assert warning in capsys.readouterr().out
    for known in (one, other):
        table = pd.DataFrame({"image": ["b", known]})
        table.to_parquet(tmp_path / "images.parquet")
        old = types.SimpleNamespace(path=tmp_path)
        new, names, keys, order = new_images(given, old)
        assert new.tolist() == ["a"] and names.tolist() == ["b", known, "a"]
        assert keys.tolist() == [fingerprint(name) for name in names[order]]
