"""The files that TensorFlow Serving is started with."""

import pathlib
import re
import subprocess
import sys

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from hccm_tf.errors import InputError
from hccm_tf.serving.server_config import FILE, write_server_config

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs" / "serving"


@pytest.fixture
def models_dir(tmp_path):
    """Two models, and what is none."""
    for folder in ("din/1", "hccm/2", "hccm/9", "hccm/10", "hccm/11.incomplete-0a"):
        (tmp_path / folder).mkdir(parents=True)
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


def test_a_label_moves_when_its_version_is_loaded(models_dir):
    write_server_config(models_dir)
    (models_dir / "hccm" / "11").mkdir()
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
    command = [sys.executable, "-m", "hccm_tf.serving.server_config"]
    command.append(f"--models_dir={models_dir}")
    run = {"capture_output": True, "text": True, "cwd": CONFIGS.parents[1]}
    good = subprocess.run([*command, "--stable=hccm:2,din:1"], check=True, **run)
    assert "hccm: stable 2, canary 10" in good.stdout.splitlines()
    bad = subprocess.run([*command, "--stable=hccm:3"], check=False, **run)
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
