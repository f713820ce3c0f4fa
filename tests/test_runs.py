"""A run on disk: kept as it is, trained by one process at a time, saved and loaded."""

import dataclasses
import json
import pathlib
import signal
import time
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import hccm_tf
from hccm_tf.configuration import configure
from hccm_tf.errors import InputError
from hccm_tf.models import find_model
from hccm_tf.run_folder import RunFolder
from hccm_tf.runs import TrainedModel, read_configuration
from hccm_tf.training.fit import prepare
from tests.conftest import tiny
from tests.flags.test_read import MINE
from tests.training.cluster import run_script

HOLDS_A_RUN = "holds a run already; go on with resume=True, name another"
IS_TRAINED = "another process trains this run"
# Trains until it is ended, or asked to.
TRAINING = """
import signal, sys
from hccm_tf.run_folder import RunFolder
with RunFolder(sys.argv[1]).training(resume=False):
    print("trains", flush=True)
    signal.pause()
"""


def _content(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", ["model", "checkpoints", "history", "metrics"])
def test_an_existing_run_is_refused_and_untouched(tmp_path, name):
    folder = RunFolder(tmp_path / "run")
    with folder.training(resume=False):
        pass
    path = getattr(folder, name)
    if name == "checkpoints":
        path = path / "00000001" / "state.json"
        path.parent.mkdir(parents=True)
    path.write_text("of the first run")
    before = _content(folder.path)
    with pytest.raises(InputError, match=HOLDS_A_RUN), folder.training(resume=False):
        pytest.fail("it trains")
    assert _content(folder.path) == before
    with folder.training(resume=True):
        assert _content(folder.path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_without_a_run_is_trained_in(tmp_path, resume):
    folder = RunFolder(tmp_path / "new" / "run")
    with folder.training(resume):
        assert folder.path.is_dir()
    # What was printed there, or by TensorBoard, is none.
    folder.log.write_text("")
    folder.logs.mkdir()
    with folder.training(resume=False):
        folder.history.write_text("")
    assert folder.exists()


def test_two_processes_do_not_train_one_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    process = run_script(TRAINING, folder.path)
    try:
        while process.said() != "trains\n":
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        # Whether or not it has left something yet.
        folder.history.write_text("")
        for resume in (False, True):
            with pytest.raises(InputError, match=IS_TRAINED), folder.training(resume):
                pytest.fail("it trains")
        # Another run is another run.
        with RunFolder(tmp_path / "other").training(resume=False):
            pass
    finally:
        # A process that is killed holds nothing.
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with folder.training(resume=True):
        pass


@pytest.fixture(scope="module")
def models(shop, fitted):
    """`TrainedModel`s: with and without images, a projection that was fitted, mine."""
    found = {name: fitted[name].fitted_.trained for name in fitted}
    for name, options in (
        ("din_fixed_cnn", {"projection": "pca"}),
        (MINE, {"power": 2.0}),
    ):
        configuration = configure(
            name, tiny(name, **options), data_dir=shop.data, feature_maps=shop.maps
        )
        found[name], _, _ = prepare(configuration)
    return found


def _random_inputs(model):
    """Three rows for a graph, whatever it takes."""
    rng = np.random.default_rng(0)
    inputs = {}
    for name, tensor in model.input.items():
        shape = [3 if size is None else size for size in tensor.shape]
        is_float = "float" in tensor.dtype
        values = rng.normal(size=shape) if is_float else rng.integers(1, 3, shape)
        inputs[name] = values.astype(tensor.dtype)
    return inputs


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("din", {"ranker", "rank", "explain"}),
        ("hccm", {"ranker", "rank", "explain", "encode_images"}),
        ("din_fixed_cnn", {"ranker", "rank", "explain", "encode_images"}),
        (MINE, {"ranker", "rank"}),
    ],
)
def test_what_is_saved_is_loaded(models, shop, tmp_path, name, forms):
    """With nothing else, not even its folders, the model can do what it could."""
    trained = models[name]
    trained.save(tmp_path / "run")
    loaded = TrainedModel.load(tmp_path / "run")
    assert type(loaded.definition) is type(trained.definition) is find_model(name)
    assert loaded.definition.options == trained.definition.options
    folders = {"data_dir": str(shop.data), "feature_maps": str(shop.maps)}
    assert loaded.configuration == dataclasses.replace(trained.configuration, **folders)
    assert read_configuration(tmp_path / "run") == loaded.configuration
    assert loaded.cnn == trained.cnn
    assert (loaded.cnn is None) == (not find_model(name).has_images)
    assert loaded.schema.features == trained.schema.features
    for feature, keys in trained.schema.vocabularies.items():
        np.testing.assert_array_equal(loaded.schema.vocabularies[feature], keys)
    if loaded.cnn is not None:
        before, after = trained.definition.images, loaded.definition.images
        assert tuple(after.shape) == tuple(before.shape)
        for part in ("channel_mean", "channel_std"):
            found = getattr(after, part)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, getattr(before, part))
    before = trained.definition.forms(trained.keras_model)
    after = loaded.definition.forms(loaded.keras_model)
    assert set(before) == set(after) == forms
    for form in forms:
        inputs = _random_inputs(before[form])
        expected = keras.tree.flatten(before[form](inputs, training=False))
        found = keras.tree.flatten(after[form](inputs, training=False))
        assert len(found) == len(expected)
        for values, wanted in zip(found, expected, strict=True):
            assert np.abs(wanted).max() > 0
            np.testing.assert_array_equal(values, wanted)


def test_a_run_says_what_made_it(models, tmp_path):
    models["din"].save(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["format"] == 4
    assert content["versions"] == {
        "hccm_tf": hccm_tf.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
    }
    assert content["model"] == "din" and content["options"]["hidden_units"] == [8]
    assert content["settings"]["batch_size"] == 128 and content["images"] is None


def _first_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _change(**changes):
    """Function that changes the description of a run."""

    def apply(path):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return apply


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("run.json", pathlib.Path.unlink, "does not describe a trained model"),
        ("run.json", _first_half, "does not describe a trained model"),
        ("run.json", lambda path: path.write_text("[]"), "does not describe"),
        ("run.json", _change(model="deep"), "model is one of .*deep"),
        ("run.json", _change(model="no_such:Model"), "model no_such:Model"),
        ("run.json", _change(options={"depth": 3}), "does not read depth"),
        ("run.json", _change(options={"dropout": 3}), "dropout: a number from 0 to 1"),
        ("run.json", _change(settings=3), "does not describe"),
        ("run.json", _change(images={}), "does not describe a trained model .*cnn"),
        ("run.json", _change(versions={}), "does not describe .*keras"),
        ("run.json", _change(versions={"keras": "new"}), "does not describe .*new"),
        ("run.json", _change(format=99), "format 99, .* reads 4; .*train_main.py"),
        ("run.json", _change(format=2), "format 2, .* reads 4; .*train_main.py"),
        ("run.json", _change(format=None), "format unknown, .*train_main.py"),
        ("model.keras", pathlib.Path.unlink, "is no trained model"),
        ("model.keras", _first_half, "is no trained model"),
        ("schema/schema.json", pathlib.Path.unlink, ""),
        ("schema/schema.json", _first_half, ""),
        ("schema/vocabularies/user_id.parquet", pathlib.Path.unlink, ""),
    ],
)
def test_a_damaged_run_is_an_error_of_one_line(models, tmp_path, name, damage, message):
    models["din"].save(tmp_path)
    assert (tmp_path / name).is_file()
    damage(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}.*{message}") as error:
        TrainedModel.load(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def _with_config(path, change):
    """Changes the configuration of the layers in a `.keras` file."""
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content["config.json"] = change(content["config.json"])
    with zipfile.ZipFile(path, "w") as file:
        for name, value in content.items():
            file.writestr(name, value)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.replace(b'"units":', b'"of_the_future": 1, "units":'),
        lambda config: config.replace(b'"Dense"', b'"DenserThanDense"'),
        lambda config: config.replace(b'"keras.layers"', b'"keras.more_layers"'),
    ],
)
def test_a_run_of_a_newer_keras_says_so(models, tmp_path, change):
    models["din"].save(tmp_path)
    _with_config(tmp_path / "model.keras", change)
    with pytest.raises(InputError, match="model.keras is no trained model") as error:
        TrainedModel.load(tmp_path)
    assert "newer than" not in str(error.value)
    _change(versions={"keras": "99.10.0"})(tmp_path / "run.json")
    message = f"saved by Keras 99.10.0, newer than {keras.__version__}.*keras>=99.10.0"
    with pytest.raises(InputError, match=message) as error:
        TrainedModel.load(tmp_path)
    assert "\n" not in str(error.value)


def test_code_in_a_run_does_not_run(models, tmp_path):
    models["din"].save(tmp_path)
    planted = str(tmp_path / "planted")
    layer = keras.layers.Lambda(
        lambda x: (__import__("pathlib").Path(planted).touch(), x)[1]
    )
    inputs = keras.Input((1,))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    pathlib.Path(planted).unlink()
    with pytest.raises(InputError, match="model.keras is no trained model .*Lambda"):
        TrainedModel.load(tmp_path)
    assert not pathlib.Path(planted).exists()
    # It would have run.
    keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    assert pathlib.Path(planted).exists()


def test_a_save_that_fails_leaves_the_run_as_it_was(models, tmp_path, monkeypatch):
    models["din"].save(tmp_path)
    before = _content(tmp_path)

    def save(model, path):
        path.write_text("a beginning")
        raise OSError("no space")

    monkeypatch.setattr(keras.Model, "save", save)
    with pytest.raises(OSError, match="no space"):
        models["din"].save(tmp_path)
    assert _content(tmp_path) == before
