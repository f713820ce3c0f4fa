"""The files that TensorFlow Serving is started with."""

import pathlib
import re
import shutil

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from hccm_tf.errors import InputError
from hccm_tf.serving.server_config import FILE, write_server_config
from hccm_tf.serving.versions import next_version, versions
from hccm_tf.serving.whole import WARMUP
from tests import processes

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs" / "serving"


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """A version that is whole, with a warm-up."""
    folder = tmp_path_factory.mktemp("version") / "1"
    module = tf.Module()
    module.values = tf.Variable(tf.zeros(5000))
    tf.saved_model.save(module, str(folder))
    (folder / WARMUP).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.model_spec.name = "din"
        writer.write(log.SerializeToString())
    return folder


@pytest.fixture
def models_dir(version, tmp_path):
    """Two models, and what is none."""
    for folder in ("din/1", "hccm/2", "hccm/9", "hccm/10"):
        shutil.copytree(version, tmp_path / folder)
    (tmp_path / "hccm" / "11.incomplete-0a").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").touch()
    return tmp_path


def _read(models_dir):
    """Name → `(versions, labels)`."""
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((models_dir / FILE).read_text(), config)
    found = {}
    for model in config.model_config_list.config:
        assert model.model_platform == "tensorflow"
        assert model.base_path == f"/models/{model.name}"
        versions = model.model_version_policy.specific.versions
        found[model.name] = list(versions), dict(model.version_labels)
    return found


def test_labels(models_dir):
    lines = write_server_config(models_dir)
    assert lines == ["din: stable 1, canary 1", "hccm: stable 9, canary 10"]
    assert _read(models_dir) == {
        "din": ([1], {"stable": 1, "canary": 1}),
        "hccm": ([9, 10], {"stable": 9, "canary": 10}),
    }
    (models_dir / FILE).unlink()
    write_server_config(models_dir, ["hccm:2"])
    assert _read(models_dir)["hccm"] == ([2, 10], {"stable": 2, "canary": 10})
    names = {"din", "hccm", "notes", "README.md", FILE}
    assert {path.name for path in models_dir.iterdir()} == names


def _write(path, cut=None, content=b""):
    """Function of a version that changes a file of it."""

    def damage(folder):
        file = folder / path
        file.write_bytes(content if cut is None else file.read_bytes()[:cut])

    return damage


def _remove(path):
    return lambda folder: (folder / path).unlink()


NOT_WHOLE = {
    "file": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
    "empty": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "model_only": lambda folder: shutil.rmtree(folder / "variables"),
    "no_model": _remove("saved_model.pb"),
    "empty_model": _write("saved_model.pb"),
    "cut_model": _write("saved_model.pb", -5),
    "no_model_in_it": _write("saved_model.pb", content=b"not a protocol buffer"),
    "no_index": _remove("variables/variables.index"),
    "cut_index": _write("variables/variables.index", -5),
    "empty_index": _write("variables/variables.index"),
    "no_data": _remove("variables/variables.data-00000-of-00001"),
    "cut_data": _write("variables/variables.data-00000-of-00001", 12_000),
    "cut_end_of_data": _write("variables/variables.data-00000-of-00001", -5000),
    "empty_data": _write("variables/variables.data-00000-of-00001"),
    "cut_warmup": _write(WARMUP, -5),
    "no_warmup_in_it": _write(WARMUP, content=b"not a record"),
}


@pytest.mark.parametrize("damage", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_only_whole_versions_count(models_dir, version, damage):
    """As while one is copied; a server would refuse the whole file."""
    shutil.copytree(version, models_dir / "hccm" / "12")
    damage(models_dir / "hccm" / "12")
    left_out, *lines = write_server_config(models_dir)
    assert re.fullmatch("hccm: version 12 is left out: .+", left_out)
    assert lines == ["din: stable 1, canary 1", "hccm: stable 9, canary 10"]
    assert _read(models_dir)["hccm"] == ([9, 10], {"stable": 9, "canary": 10})
    with pytest.raises(InputError, match=r"hccm has the versions \[2, 9, 10\]"):
        write_server_config(models_dir, ["hccm:12"])
    # Nor does the next one take its number.
    assert next_version(models_dir / "hccm").name == "13"
    shutil.rmtree(models_dir / "din")
    for number in (2, 9, 10):
        shutil.rmtree(models_dir / "hccm" / str(number))
    with pytest.raises(InputError, match="^models_dir: .*version 12 is left out"):
        write_server_config(models_dir)


def test_names_that_are_no_numbers(models_dir):
    for name in ("²", "٣", "012", "-1", "1e1", "9" * 30, "13.part"):
        (models_dir / "hccm" / name).mkdir()
    assert versions(models_dir / "hccm") == [2, 9, 10]
    assert write_server_config(models_dir)[1:] == ["hccm: stable 9, canary 10"]
    with pytest.raises(InputError, match="Received: hccm:²"):
        write_server_config(models_dir, ["hccm:²"])


def test_a_label_moves_when_its_version_is_loaded(models_dir, version):
    write_server_config(models_dir)
    shutil.copytree(version, models_dir / "hccm" / "11")
    lines = write_server_config(models_dir)
    assert lines[1:] == [
        "hccm: stable 10, canary 10",
        "hccm: once the server has loaded versions [10, 11], run this again "
        "for stable 10, canary 11",
    ]
    assert _read(models_dir)["hccm"] == ([10, 11], {"stable": 10, "canary": 10})
    assert write_server_config(models_dir)[1:] == ["hccm: stable 10, canary 11"]
    assert _read(models_dir)["hccm"] == ([10, 11], {"stable": 10, "canary": 11})
    # Back to one that was unloaded.
    write_server_config(models_dir, ["hccm:2"])
    assert _read(models_dir)["hccm"] == ([2, 10, 11], {"stable": 10, "canary": 11})
    write_server_config(models_dir, ["hccm:2"])
    assert _read(models_dir)["hccm"] == ([2, 11], {"stable": 2, "canary": 11})


@pytest.mark.parametrize("stable", ["dnn:1", "hccm", "hccm:3", "hccm:two", "hccm:"])
def test_a_bad_stable(models_dir, stable):
    with pytest.raises(InputError, match=f"^stable: .*Received: {stable}$"):
        write_server_config(models_dir, [stable])
    assert not (models_dir / FILE).exists()


def test_files_that_are_not_there_or_not_readable(models_dir, tmp_path):
    with pytest.raises(InputError, match="^models_dir: .*Received: .*notes$"):
        write_server_config(tmp_path / "notes")
    (models_dir / FILE).write_text("model_config_list { nonsense }")
    with pytest.raises(InputError, match=f"{FILE}: remove it"):
        write_server_config(models_dir)


def test_command(models_dir):
    command = ["-m", "hccm_tf.serving.server_config", f"--models_dir={models_dir}"]
    good = processes.run([*command, "--stable=hccm:2,din:1"], check=True)
    lines = good.stdout.splitlines()
    assert "hccm: stable 2, canary 10" in lines
    assert lines[-1] == f"-> {models_dir / FILE}"
    bad = processes.run([*command, "--stable=hccm:3"])
    assert bad.returncode == 2
    assert bad.stderr.splitlines()[-1].startswith("error: --stable")


def test_batching_config():
    """Its message is not part of tensorflow-serving-api."""
    text = re.sub("#.*", "", (CONFIGS / "batching.config").read_text())
    sizes = [int(size) for size in re.findall(r"allowed_batch_sizes: (\d+)", text)]
    (largest,) = re.findall(r"max_batch_size \{ value: (\d+) \}", text)
    assert sizes == sorted(set(sizes)) and sizes[-1] == int(largest)
    assert "pad_variable_length_inputs: true" in text


def test_monitoring_config():
    text = (CONFIGS / "monitoring.config").read_text()
    path = re.search('path: "(.*)"', text)[1]
    assert path in (CONFIGS / "compose.yaml").read_text()


def test_compose_file_names_the_files():
    text = (CONFIGS / "compose.yaml").read_text()
    assert f"--model_config_file=/models/{FILE}" in text
    for name in re.findall(r"=/configs/(\S+)", text):
        assert (CONFIGS / name).is_file()
