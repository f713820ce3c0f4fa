"""`train_main.py`: what it makes of a run that is there, and what it refuses."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from absl import flags
from sklearn.metrics import log_loss, roc_auc_score

import hccm_tf
import train_main
from hccm_tf import training_run
from hccm_tf.flags.read import parse, read_configuration_flags, typed
from hccm_tf.metrics import evaluate_frame
from hccm_tf.run_folder import RunFolder
from hccm_tf.runs import read_configuration
from hccm_tf.training.preemption import Preempted
from hccm_tf.verdict.aucs import auc_with_interval
from tests import processes
from tests.conftest import tiny

ROOT = pathlib.Path(train_main.__file__).parent
MINE = "tests.flags.my_model:MyModel"


def _flags(model, **options):
    """Those of a tiny model, as they are written."""
    values = {"epochs": 1, "batch_size": 128, **tiny(model, **options)}
    words = {k: ",".join(map(str, np.atleast_1d(v))) for k, v in values.items()}
    flags = (f"--{name}={word}" for name, word in words.items())
    return [f"--model={model}", "--noverdict", *flags]


@pytest.fixture
def main(monkeypatch, capsys):
    """Function that runs a command line in this process.

    It returns what was printed; of a command line that ends with an error, the line
    that says so.
    """
    # Of the whole process, and for its whole life.
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)

    def call(*words):
        values = flags.FlagValues()
        monkeypatch.setattr(train_main, "FLAGS", values)
        monkeypatch.setattr(training_run, "FLAGS", values)
        argv = ["train_main.py", *map(str, words)]
        monkeypatch.setattr(sys, "argv", argv)
        capsys.readouterr()
        try:
            train_main.main(train_main.parse_flags(argv))
        except SystemExit as end:
            if end.code != 2:
                raise
            output = capsys.readouterr()
            call.printed, lines = output.out, output.err.splitlines()
            (line,) = [line for line in lines if line.startswith("error: ")]
            assert "Traceback" not in output.err
            return line
        return capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def hccm_run(fitted, tmp_path_factory):
    """RUN of `hccm`, as an estimator leaves it."""
    folder = tmp_path_factory.mktemp("hccm") / "run"
    fitted["hccm"].save(folder)
    return folder


@pytest.fixture(scope="module")
def din_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("din") / "run"


@pytest.fixture
def din_run(shop, tmp_path, main, din_folder):
    """RUN of `din`, as the command leaves it, in a folder of its own for each test."""
    if not din_folder.exists():
        main(f"--data_dir={shop.data}", f"--run_dir={din_folder}", *_flags("din"))
    return shutil.copytree(din_folder, tmp_path / "run")


def _content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _metrics(folder):
    content = RunFolder(folder).read_metrics()
    return {name: content[name] for name in ("model", "seed", "validation", "test")}


def test_a_run_is_exported_and_explained_as_it_is(
    shop, fitted, hccm_run, tmp_path, main
):
    folder, predicted = RunFolder(hccm_run), fitted["hccm"].predictions(shop.data)
    # As a command leaves them.
    predicted.to_parquet(folder.predictions)
    metrics = evaluate_frame(predicted)
    folder.write_metrics({"validation": metrics, "test": metrics})
    before = _content(hccm_run)
    printed = main(
        f"--from_run={hccm_run}",
        f"--export_dir={tmp_path}",
        "--representation_dtype=float16",
        *("--explain=2", "--projector=5", f"--image_dir={shop.images}"),
    )
    version = tmp_path / "1"
    assert f"exported {version}" in printed and "explanation.html" in printed
    assert printed.endswith(f"\nnext: hccm-ask {version} {hccm_run}/request.json\n")
    after = _content(hccm_run)
    projected = {path for path in after if path.parent == folder.projector}
    new = {folder.request, folder.explanation, *projected}
    assert set(after) - set(before) == new
    assert folder.projector / "photos.png" in projected
    assert before.items() <= after.items()
    card = (version / "assets.extra" / "model_card.md").read_text()
    low, high = auc_with_interval(predicted)["interval"]
    of_test = f"| {metrics['auc']:.4f} | {low:.4f} to {high:.4f} |"
    assert f"run `{hccm_run.name}`" in card
    assert f"\n| test | {len(predicted)} {of_test}" in card
    assert (
        f"\n| validation | {len(predicted)} | {metrics['auc']:.4f} | not kept" in card
    )
    signature = tf.saved_model.load(str(version)).signatures["serve_examples"]
    files = map(str, shop.data.glob("*-test.tfrecord-*"))
    records = [r.numpy() for r in tf.data.TFRecordDataset(sorted(files))]
    expected = fitted["hccm"].predict_proba(shop.data)[:, 1]
    ctr = signature(examples=tf.constant(records))["ctr"]
    np.testing.assert_allclose(ctr, expected, atol=1e-3)
    for path in (*new, folder.predictions, folder.metrics):
        path.unlink()


def test_a_run_is_tested_on_data(shop, din_run, tmp_path, main):
    """As it is, and by the old name of that; on the same data with the same metrics."""
    expected, ctr = _metrics(din_run), pd.read_parquet(RunFolder(din_run).predictions)
    same = f"--data_dir={shop.data}"
    main(f"--from_run={din_run}", same, f"--run_dir={tmp_path / 'from_run'}")
    old_name = (f"--warm_start_from={din_run}", "--epochs=0", "--batch_size=128")
    main(*old_name, same, f"--run_dir={tmp_path / 'epochs'}")
    for name in ("from_run", "epochs"):
        folder = RunFolder(tmp_path / name)
        assert _metrics(folder.path) == expected
        pd.testing.assert_frame_equal(pd.read_parquet(folder.predictions), ctr)
        training = folder.read_metrics()["training"]
        assert (training["epochs"], training["seconds"]) == (0, 0)
        assert not folder.checkpoints.exists()
        # It is a run itself, which can be taken as it is.
        again = hccm_tf.load_run(folder.path).predictions(shop.data)
        np.testing.assert_array_equal(again.ctr, ctr.ctr)
    line = main(f"--from_run={din_run}", same, f"--run_dir={din_run}")
    assert f"--run_dir={din_run}: it holds a run already" in line


def test_weights_are_in_the_metrics_and_rows_in_the_predictions(
    request_shop, tmp_path, main
):
    folder = RunFolder(tmp_path / "run")
    data = f"--data_dir={request_shop.data}"
    main(data, f"--run_dir={folder.path}", *_flags("base"))
    frames = {
        "validation": hccm_tf.load_run(folder.path).predictions(
            request_shop.data, "validation"
        ),
        "test": pd.read_parquet(folder.predictions),
    }
    log = request_shop.log
    of_log = ["user_id", "item_id", "timestamp"]
    for split, frame in frames.items():
        added = of_log if split == "test" else []
        assert list(frame) == ["row", *added, "user_key", "label", "weight", "ctr"]
        for name in added:
            assert frame[name].tolist() == log[name][frame.row].tolist()
        assert sorted(frame.row) == log.index[log.split == split].tolist()
        shown, counts = log.loc[frame.row], {"sample_weight": frame.weight}
        for name, column in zip(
            ("user_key", "label", "weight"), ("user_id", "label", "weight"), strict=True
        ):
            np.testing.assert_array_equal(frame[name], shown[column])
        metrics = folder.read_metrics()[split]
        for name, metric in (("auc", roc_auc_score), ("log_loss", log_loss)):
            expected = metric(frame.label, frame.ctr, **counts)
            assert metrics[name] == pytest.approx(expected)
            assert metrics[name] != pytest.approx(metric(frame.label, frame.ctr))
        assert metrics["impressions"] == len(frame)


def test_a_run_is_trained_further(shop, din_run, tmp_path, main):
    """By its folder and the day's data alone."""
    main(
        f"--warm_start_from={din_run}",
        *(f"--data_dir={shop.data}", f"--run_dir={tmp_path / 'next'}", "--epochs=1"),
        "--noverdict",
    )
    before, after = (read_configuration(tmp_path / n) for n in ("run", "next"))
    assert after.options == before.options
    assert after.settings.batch_size == 512 != before.settings.batch_size
    first, second = (
        keras.saving.load_model(RunFolder(path).model, compile=False).get_weights()
        for path in (din_run, tmp_path / "next")
    )
    assert [w.shape for w in first] == [w.shape for w in second]
    flagfile = RunFolder(tmp_path / "next").flags.read_text().splitlines()
    assert f"--warm_start_from={din_run}" in flagfile
    assert "--warm_start=all" in flagfile and "--hidden_units=8" in flagfile


def test_what_a_run_that_is_taken_as_it_is_does_not_need(
    hccm_run, tmp_path, main, shop
):
    this = f"--from_run={hccm_run}"
    as_it_is = f"{this} takes the run as it is"
    export = f"--export_dir={tmp_path / 'export'}"
    before = _content(hccm_run)
    for words, error in (
        ([], "--from_run: what to do with the run is missing: --export_dir"),
        ([f"--data_dir={shop.data}"], "--from_run: what to do with the run is missing"),
        ([export, "--dropout=0.1"], f"--dropout: {as_it_is}"),
        ([export, "--noproducts"], f"--products: {as_it_is}"),
        ([export, "--model=hccm"], f"--model: {as_it_is}"),
        ([export, "--epochs=2"], f"--epochs: {as_it_is}"),
        ([export, f"--warm_start_from={hccm_run}"], "--from_run takes a run as it is"),
        (["--explain=3"], "--image_dir: the folder of images such as 100"),
        (["--explain=3", "--allow_links"], "--image_dir: the folder of images such"),
        (["--explain=3", "--image_dir=no_such"], "--image_dir=no_such: no such folder"),
        (["--projector=3", "--image_dir=no_such"], "--image_dir=no_such: no such"),
        (["--projector=20000"], "--projector: an integer from 0 to 16384"),
        ([export, "--feature_maps=no_such"], "no_such"),
    ):
        assert error in main(this, *words), words
    assert _content(hccm_run) == before and not list(tmp_path.iterdir())
    line = main(f"--from_run={tmp_path / 'no_run'}", export)
    assert str(tmp_path / "no_run" / "run.json") in line


def test_where_photos_may_be_is_told_of_a_run_that_is_taken_as_it_is(hccm_run):
    for word, allowed in (("--allow_links", True), ("--noallow_links", False)):
        values, words = flags.FlagValues(), [f"--from_run={hccm_run}", word]
        parse(values, ["train_main.py", *words])
        told = read_configuration_flags(values, typed(values, words))
        assert told.settings.allow_links == allowed


def test_a_flagfile_beside_a_run_is_left_out(hccm_run, tmp_path, main, shop):
    (tmp_path / "shared.flags").write_text("--dropout=0.1\n--model=din\n--epochs=3\n")
    line = main(
        f"--from_run={hccm_run}",
        f"--flagfile={tmp_path / 'shared.flags'}",
        f"--feature_maps={tmp_path / 'no_maps'}",
        f"--export_dir={tmp_path / 'export'}",
    )
    # Which is found after the flags have been read.
    assert "no_maps" in line
    (left_out,) = main.printed.splitlines()
    assert left_out.startswith("left out of the flagfile: --")
    assert left_out.endswith(f": --from_run={hccm_run} takes the run as it is")
    assert all(f"--{name}" in left_out for name in ("dropout", "model", "epochs"))


def test_words_that_belong_to_no_flag_are_an_error(shop, tmp_path, main):
    common = (f"--data_dir={shop.data}", f"--run_dir={tmp_path / 'run'}")
    for words in (["--products", "false"], ["din"], ["--", "--model=din"]):
        line = main(*common, "--model=din", *words)
        assert "words that belong to no flag" in line
        assert line.endswith(f"Received: {words[-1]}")
    assert not list(tmp_path.iterdir())


def test_a_flag_that_the_model_does_not_read(shop, tmp_path, main):
    common = (f"--data_dir={shop.data}", f"--run_dir={tmp_path / 'run'}")
    line = main(*common, "--model=din", "--cnn_filters=4,4")
    assert "--cnn_filters: model din does not read it; it reads --embedding_dim" in line
    assert not list(tmp_path.iterdir())
    (tmp_path / "shared.flags").write_text("--cnn_filters=4,4\n--similarity=cosine\n")
    shared = f"--flagfile={tmp_path / 'shared.flags'}"
    # Data that are found to be missing after the flags have been read.
    line = main(f"--data_dir={tmp_path / 'no_data'}", common[1], *_flags("din"), shared)
    assert "no_data" in line
    expected = "--similarity, --cnn_filters: model din does not read it"
    assert main.printed.startswith(f"left out of the flagfile: {expected}\n")


def test_a_run_that_exists_is_refused_and_untouched(shop, din_run, main):
    before = _content(din_run)
    words = (f"--data_dir={shop.data}", f"--run_dir={din_run}", *_flags("din"))
    line = main(*words, "--seed=1")
    assert f"--run_dir={din_run}: it holds a run already" in line
    line = main(*words, "--resume", "--seed=1")
    assert "--seed: the run to resume began with 0" in line
    assert _content(din_run) == before
    # It has ended: there is nothing to go on with, and the same result.
    main(*words, "--resume")
    after = _content(din_run)
    for name in ("model", "predictions", "history", "flags"):
        path = getattr(RunFolder(din_run), name)
        assert path in after and (name == "model" or after[path] == before[path])


def test_a_model_of_ones_own(shop, tmp_path, main):
    """Its option is a flag, and its run needs neither to be exported."""
    run = tmp_path / "run"
    main(
        *(f"--data_dir={shop.data}", f"--run_dir={run}", f"--model={MINE}"),
        *("--power=2.5", "--epochs=1", "--batch_size=525", "--hidden_units=8"),
        "--noverdict",
    )
    content = json.loads((run / "run.json").read_text())
    assert content["model"] == MINE and content["options"]["power"] == 2.5
    assert f"--model={MINE}\n" in (run / "run.flags").read_text()
    assert "--power=2.5\n" in (run / "run.flags").read_text()
    printed = main(f"--from_run={run}", f"--export_dir={tmp_path / 'export'}")
    assert f"exported {tmp_path / 'export' / '1'}" in printed
    request = json.loads((run / "request.json").read_text())
    assert request["signature_name"] == "serving_default"
    loaded = tf.saved_model.load(str(tmp_path / "export" / "1"))
    signature = loaded.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    inputs = {n: tf.constant(v, specs[n].dtype) for n, v in request["inputs"].items()}
    ctr = signature(**inputs)["ctr"]
    expected = pd.read_parquet(run / "test_predictions.parquet").ctr[: len(ctr)]
    assert len(ctr) == 3
    np.testing.assert_allclose(ctr, expected, atol=1e-6)
    # Nor do warm starts have to name it, not even for other values of its options.
    further = (f"--warm_start_from={run}", f"--data_dir={shop.data}", "--epochs=0")
    main(*further, f"--run_dir={tmp_path / 'same'}", "--power=2.5")
    assert _metrics(tmp_path / "same") == _metrics(run)
    line = main(*further, f"--run_dir={tmp_path / 'other'}", "--power=3")
    assert "--power: without training" in line
    line = main(f"--from_run={run}", "--explain=2", f"--image_dir={shop.images}")
    assert "model my_model has no attention to show" in line


def test_a_verdict_on_photos(shop, tmp_path, main):
    """It is printed, and in the metrics; what cannot be measured is said first."""
    folder = RunFolder(tmp_path / "run")
    data, maps = f"--data_dir={shop.data}", f"--feature_maps={shop.maps}"
    run, check = f"--run_dir={folder.path}", "--check_photos"
    for words, error in (
        (
            (data, *_flags("din"), "--verdict"),
            "--check_photos: model din sees no photos",
        ),
        ((data, maps, *_flags("hcm")), "--check_photos is a line of the verdict"),
        ((data, "--model=trees"), "--check_photos is a line of the verdict"),
        (
            (data, maps, *_flags("hcm"), "--verdict", "--shuffle_images"),
            "--check_photos: --shuffle_images has dealt",
        ),
        ((data, maps, "--compare=din,hcm"), "--check_photos is of one model"),
    ):
        assert error in main(run, check, *words)
        assert not list(tmp_path.iterdir())
    printed = main(data, maps, run, *_flags("din_fixed_cnn"), "--verdict", check)
    content = folder.read_metrics()
    # A log, which is no terminal, gets a line an epoch.
    assert "\b" not in printed and "\r" not in printed
    assert len(re.findall(r"- loss: \d", printed)) == 2
    exports = f"--from_run={folder.path} --export_dir=saved_models/din_fixed_cnn"
    assert printed.endswith(f"\nnext: hccm-train {exports}\n")
    verdict, said = content["verdict"], content["verdict"]["lines"]
    assert "".join(f"\n  {line}" for line in said) + "\nnext: " in printed
    assert [line.split()[0] for line in said[-2:]] == ["Photos", "Next:"]
    photos = verdict["photos"]
    assert photos["auc"] == pytest.approx(content["test"]["auc"])
    assert photos["gain"] == pytest.approx(photos["auc"] - photos["base_auc"])
    assert photos["interval"][0] < photos["gain"] < photos["interval"][1]
    assert f"{photos['base_auc']:.4f} of the same with the photos dealt" in said[-2]


@pytest.mark.parametrize("end", [Preempted, KeyboardInterrupt])
def test_what_is_next_after_a_verdict_that_was_ended(
    shop, tmp_path, main, monkeypatch, capsys, end
):
    """SIGTERM says itself how to go on."""

    def ends(*arguments):
        raise end

    monkeypatch.setattr(training_run, "give_verdict", ends)
    words = f"--data_dir={shop.data}", f"--run_dir={tmp_path / 'run'}"
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        main(*words, *_flags("din"), "--verdict")
    printed = capsys.readouterr().out
    assert ("go on with --resume" in printed) == (end is Preempted)
    assert ("next: hccm-train --from_run" in printed) == (end is KeyboardInterrupt)


def test_trees(weighted_shop, tmp_path, main):
    """Their run has what a comparison reads, and refuses what is of networks."""
    folder = RunFolder(tmp_path / "run")
    common = (
        f"--data_dir={weighted_shop.data}",
        f"--feature_maps={weighted_shop.maps}",
    )
    words = (*common, "--model=trees", f"--run_dir={folder.path}")
    for more, error in (
        ([f"--export_dir={tmp_path}"], "--export_dir: trees are a bar to compare with"),
        (
            ["--explain=2", f"--image_dir={weighted_shop.images}"],
            "trees has no attention",
        ),
        (
            ["--epochs=2"],
            "--epochs: model trees does not read it; it reads --similarity",
        ),
        (["--similarity=histogram"], "--similarity: one of none, cosine"),
        (["--shuffle_images"], "--shuffle_images: trees see no images with"),
    ):
        assert error in main(*words, *more), more
        assert not list(tmp_path.iterdir())
    # What a flagfile says for all models fits them.
    main("--flagfile=configs/hccm.flags", *words, "--seed=3")
    assert "--similarity=category_cosine" in folder.flags.read_text()
    content = folder.read_metrics()
    assert (content["model"], content["seed"]) == ("trees", 3)
    assert content["training"].keys() == {"seconds", "epochs", "parameters"}
    assert content["examples_per_second"] > 0
    frame = pd.read_parquet(folder.predictions)
    expected = roc_auc_score(frame.label, frame.ctr, sample_weight=frame.weight)
    assert content["test"]["auc"] == pytest.approx(expected)
    assert content["validation"]["impressions"] == len(
        weighted_shop.log[weighted_shop.log.split == "validation"]
    )
    flagfile = f"--flagfile={folder.flags}"
    line = main(flagfile, f"--run_dir={folder.path}")
    assert "it holds a run already; go on with --resume, name another" in line
    main(flagfile, f"--run_dir={tmp_path / 'again'}")
    assert _metrics(tmp_path / "again") == _metrics(folder.path)
    line = main(f"--warm_start_from={folder.path}", *common, f"--run_dir={tmp_path}/x")
    assert "run.json does not describe a trained model" in line


def _start(*words, **environment):
    return subprocess.run(
        [sys.executable, ROOT / "train_main.py", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_the_flags_of_a_run_make_it_again(shop, tmp_path):
    """To the last bit, in processes of their own."""
    first, second = tmp_path / "first", tmp_path / "second"
    folders = (f"--data_dir={shop.data}", f"--feature_maps={shop.maps}")
    options = _flags("hcm", dropout=0.3, similarity="cosine", seed=3)
    result = _start(*folders, f"--run_dir={first}", *options, "--channel_attention")
    assert result.returncode == 0, result.stderr
    words = (f"--flagfile={first / 'run.flags'}", f"--run_dir={second}")
    result = processes.run([ROOT / "train_main.py", *words])
    assert result.returncode == 0, result.stderr
    frames = [pd.read_parquet(f / "test_predictions.parquet") for f in (first, second)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    assert frames[0].ctr.std() > 0 and _metrics(first) == _metrics(second)
    for name in ("run.flags", "run.json"):
        assert (first / name).read_text() == (second / name).read_text()
    assert first.name not in (first / "run.flags").read_text()


def test_another_backend_of_keras_is_an_error_of_one_line(tmp_path):
    """Of a backend that is there, and of one that is not."""
    for backend in ("jax", "numpy"):
        result = _start(
            *("--model=din", "--data_dir=DATA", f"--run_dir={tmp_path / 'run'}"),
            KERAS_BACKEND=backend,
        )
        assert result.returncode == 2, result.stderr
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"error: KERAS_BACKEND={backend}: ")
        assert "KERAS_BACKEND=tensorflow" in line
        assert not list(tmp_path.iterdir())
