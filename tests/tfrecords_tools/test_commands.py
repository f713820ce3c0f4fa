import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

from hccm_tf.layers import HybridCNN
from hccm_tf.optimizers import LazyAdam
from hccm_tf.quiet import LEVEL
from tests import processes

ROOT = pathlib.Path(__file__).parents[2]


ENVIRONMENT = {n: v for n, v in os.environ.items() if n != LEVEL}


def _run(*arguments):
    return processes.run(arguments, env=ENVIRONMENT, cwd=ROOT)


def _assert_input_error(result, *words):
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_build_examples(shop, tmp_path):
    log = shop.impressions.head(50).assign(label=2)
    log.to_csv(tmp_path / "log.csv", index=False)
    result = _run(
        *("-m", "tfrecords_tools.build_examples"),
        f"--items={shop.path / 'shop' / 'items.csv'}",
        f"--impressions={tmp_path / 'log.csv'}",
        f"--output_dir={tmp_path / 'data'}",
    )
    _assert_input_error(result, "label", "row 1")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_extract_feature_maps(shop, tmp_path):
    result = _run(
        *("-m", "tfrecords_tools.extract_feature_maps"),
        f"--items={shop.path / 'shop' / 'items.csv'}",
        f"--image_dir={shop.images}",
        f"--output_dir={tmp_path / 'maps'}",
        "--weights=random",
        "--layer=no_such_layer",
    )
    _assert_input_error(result, "--layer", "no_such_layer")
    assert not (tmp_path / "maps").exists()


def test_inspect_examples(shop, tmp_path):
    command = ("-m", "tfrecords_tools.inspect_examples")
    result = _run(*command, f"--data_dir={shop.data}", "--split=test", "--count=2")
    assert result.returncode == 0 and not result.stderr
    assert result.stdout.startswith("test, request 1\n")
    assert "test, request 2" in result.stdout
    assert "test, request 3" not in result.stdout
    _assert_input_error(_run(*command, f"--data_dir={tmp_path}"), str(tmp_path))


def test_make_demo_and_an_unknown_flag(tmp_path):
    command = ("-m", "tfrecords_tools.make_demo", f"--output_dir={tmp_path}")
    _assert_input_error(_run(*command), "exists already", str(tmp_path))
    _assert_input_error(_run(*command, "--request_size=9999"), "request_size", "9999")
    result = _run(*command, "--photos=3")
    assert result.returncode == 1 and "photos" in result.stderr


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--model=hccm"], "--feature_maps"),
        (["--model=din", "--hidden_units=8,wide"], "wide"),
        (["--model=din", "--explain=2"], "--image_dir"),
        (["--model=din", "--export_dir=/proc/none"], "--export_dir=/proc/none"),
        (["--model=din", "--run_dir=/proc/none"], "--run_dir=/proc/none"),
    ],
)
def test_train_main_input_errors(shop, tmp_path, flags, word):
    result = _run(
        "train_main.py",
        f"--data_dir={shop.data}",
        f"--run_dir={tmp_path / 'run'}",
        *flags,
    )
    _assert_input_error(result, word)
    assert list(tmp_path.iterdir()) == []


def test_train_main(shop, tmp_path):
    """And all that it says from its start on."""
    command = [
        *(sys.executable, "train_main.py"),
        f"--data_dir={shop.data}",
        f"--feature_maps={shop.maps}",
        f"--run_dir={tmp_path / 'run'}",
        f"--export_dir={tmp_path / 'export'}",
        *("--model=hcm", "--epochs=1", "--batch_size=256", "--seed=5"),
        *("--hidden_units=8,4", "--cnn_filters=4,4", "--image_embedding_dim=4"),
        *("--channel_attention", "--similarity=histogram"),
        *("--explain=2", f"--image_dir={shop.images}"),
    ]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT
    )
    # A slow machine shows its progress.
    said = [row for row in result.stderr.splitlines() if not row.endswith(" left")]
    assert (result.returncode, said) == (0, [])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["model"], metrics["seed"]) == ("hcm", 5)
    names = {"auc", "gauc", "log_loss", "calibration", "impressions"}
    assert names <= set(metrics["test"]) and names <= set(metrics["validation"])
    assert metrics["test"]["impressions"] == 300
    assert metrics["validation"]["impressions"] == 150
    assert metrics["examples_per_second"] > 0
    verdict = metrics["verdict"]
    assert verdict["trees"]["similarity"] == "cosine"
    assert all(line in result.stdout for line in verdict["lines"])
    training = metrics["training"]
    assert training["epochs"] == 1 and training["seconds"] > 0
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert training["parameters"] == sum(w.size for w in model.get_weights())
    assert (
        (tmp_path / "run" / "history.csv").read_text().startswith("epoch,loss,val_auc")
    )
    assert isinstance(model.optimizer, LazyAdam)
    cnn = model.get_layer("image_encoder").get_layer("hybrid_cnn")
    assert isinstance(cnn, HybridCNN) and cnn.channel_attention
    assert (tmp_path / "run" / "explanation.html").is_file()
    assert (tmp_path / "export" / "1" / "saved_model.pb").is_file()
