import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

import train_main
from hccm_tf import finite_json
from hccm_tf.comparison.compare import compare
from hccm_tf.comparison.search import draw_settings
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.flags.read import typed
from hccm_tf.metrics import evaluate_predictions
from tests import processes
from tests.comparison.test_arms import parsed

# How much a click raises the score of an arm.
STRENGTH = {"din": 0.2, "hcm": 1.0, "hccm": 3.0, "trees": 0.3}


class Trainer:
    """Leaves what a run of `train_main.py` does, but predicts by drawing.

    Args:
        shop: the fixture.
        fails: tells from the flags whether the run fails.
        interrupted_after: number of runs.
        validation_auc: of each run without dropout.
    """

    def __init__(
        self,
        shop,
        fails=lambda flags: False,
        interrupted_after=10**9,
        validation_auc=0.6,
    ):
        self.test = shop.log[shop.log.split == "test"]
        self.fails = fails
        self.interrupted_after = interrupted_after
        self.validation_auc = validation_auc
        self.run_dirs, self.data_dirs = [], []

    def __call__(self, words, run_dir):
        if len(self.run_dirs) == self.interrupted_after:
            raise KeyboardInterrupt
        self.run_dirs.append(run_dir)
        flags = parsed(*words)
        assert flags.run_dir == str(run_dir)
        if self.fails(flags):
            return
        strength = 0.2 if flags.shuffle_images else STRENGTH[flags.model]
        labels = self.test.label.to_numpy()
        rng = np.random.default_rng([flags.seed, len(flags.model)])
        ctr = 1 / (1 + np.exp(-strength * labels + rng.normal(size=len(labels))))
        row, users = self.test.index.to_numpy(), self.test.user_id.to_numpy()
        frame = pd.DataFrame(
            {"row": row, "user_key": users, "label": labels, "weight": 1.0, "ctr": ctr}
        )
        frame.to_parquet(run_dir / "test_predictions.parquet")
        if flags.model != "trees":
            epochs = pd.DataFrame({"epoch": [0, 1], "loss": [0.7, 0.6]})
            epochs = epochs.assign(val_auc=[0.6, 0.65])
            epochs.to_csv(run_dir / "history.csv", index=False)
        self.data_dirs.append(flags.data_dir)
        metrics = {
            "validation": {"auc": self.validation_auc + (flags.dropout or 0) / 10},
            "test": evaluate_predictions(frame.label, frame.ctr, frame.user_key),
            "examples_per_second": 1000.0 + flags.seed,
            "training": {"seconds": 2.0, "epochs": 2, "parameters": 1234},
        }
        (run_dir / "metrics.json").write_text(finite_json.to_text(metrics))


def _words(shop, folder, *words, arms="din,hcm,hccm,hccm --shuffle_images"):
    return (
        f"--data_dir={shop.data}",
        f"--feature_maps={shop.maps}",
        f"--run_dir={folder}",
        f"--compare={arms}",
        *("--seeds=3", "--search_trials=0", "--seed=5"),
        *words,
    )


def _compare(words, trainer):
    values = parsed(*words)
    return compare(values, typed(values, words), trainer)


def _auc(shop, run_dir):
    labels = shop.log[shop.log.split == "test"].label
    return roc_auc_score(
        labels, pd.read_parquet(run_dir / "test_predictions.parquet").ctr
    )


def test_report(shop, tmp_path):
    (tmp_path / "oracle.json").write_text(
        json.dumps({"auc": 0.995, "gauc": 0.9, "log_loss": 0.2, "calibration": 1.0})
    )
    words = _words(shop, tmp_path / "all", f"--oracle={tmp_path / 'oracle.json'}")
    trainer = Trainer(shop)
    result = _compare(words, trainer)
    assert len(trainer.run_dirs) == 12 and result["seeds"] == [5, 6, 7]
    assert result == json.loads((tmp_path / "all" / "comparison.json").read_text())
    aucs = {}
    for arm, place in zip(result["arms"], range(0, 12, 3), strict=True):
        runs = [_auc(shop, path) for path in trainer.run_dirs[place : place + 3]]
        aucs[arm["label"]] = np.array(runs)
        assert arm["test"]["auc"]["mean"] == pytest.approx(np.mean(runs))
        assert arm["test"]["auc"]["sd"] == pytest.approx(np.std(runs, ddof=1))
    first, second, control, photos = result["comparisons"]
    assert [first["base"], second["base"], control["base"]] == ["din", "hcm", "din"]
    gain = aucs["hccm"] - aucs["hcm"]
    assert second["gain_by_seed"] == pytest.approx(gain.tolist())
    assert second["interval"][0] < gain.mean() < second["interval"][1]
    assert (photos["arm"], photos["base"]) == ("hccm", "hccm --shuffle_images")
    # Holm over all but the control.
    tested = sorted((row["p"], row["p_holm"]) for row in (first, second, photos))
    expected = np.maximum.accumulate([3 * tested[0][0], 2 * tested[1][0], tested[2][0]])
    assert [p_holm for _, p_holm in tested] == pytest.approx(expected)
    assert control["kind"] == "control" and control["p_holm"] is None
    text = (tmp_path / "all" / "comparison.md").read_text()
    assert "**The order din < hcm < hccm holds**" in text
    assert "Control: **hccm --shuffle_images is not shown to gain over din**" in text
    assert "**hccm gains over the same with shuffled photos**" in text
    share = (aucs["hccm"].mean() - aucs["din"].mean()) / (0.995 - aucs["din"].mean())
    row = next(line for line in text.splitlines() if line.startswith("| hccm | 0."))
    assert f"{aucs['hccm'].mean():.4f} ± {aucs['hccm'].std(ddof=1):.4f}" in row
    assert row.endswith(f"| {share:.0%} |")
    assert "| oracle | 0.9950 | 0.9000 | 0.2000 | 1.0000 | 100% |" in text
    assert "| din | 1006 ± 1 | 2.0 ± 0.0 | 2.0 ± 0.0 | 1,234 |" in text
    assert "over the seeds 5, 6, 7;" in text
    assert "long histories (8 clicks)" in text and "cold items" in text
    assert not list((tmp_path / "all").glob("*.part"))


def test_an_order_that_does_not_hold_and_a_control_that_gains(
    shop, tmp_path, monkeypatch
):
    monkeypatch.setitem(STRENGTH, "din", 1.0)
    monkeypatch.setitem(STRENGTH, "hcm", -2.0)
    arms = "hcm,din,hccm,hccm --shuffle_images"
    _compare(_words(shop, tmp_path, arms=arms.replace("hccm,", "", 1)), Trainer(shop))
    text = (tmp_path / "comparison.md").read_text()
    assert "GAINS over hcm**" in text
    assert "over the same with shuffled photos" not in text
    monkeypatch.setitem(STRENGTH, "hccm", 1.0)
    _compare(_words(shop, tmp_path, arms=arms), Trainer(shop))
    text = (tmp_path / "comparison.md").read_text()
    assert "**The order hcm < din < hccm is not shown.**" in text
    assert "p < 0.05: hccm over din" in text and "din over hcm" not in text
    assert "**hccm gains over the same with shuffled photos**" in text
    monkeypatch.setitem(STRENGTH, "hccm", 0.2)
    _compare(_words(shop, tmp_path / "same", arms=arms), Trainer(shop))
    text = (tmp_path / "same" / "comparison.md").read_text()
    assert "**hccm is NOT shown to gain over the same with shuffled photos**" in text


def test_two_seeds_give_no_verdict(shop, tmp_path):
    _compare(_words(shop, tmp_path, "--seeds=2"), Trainer(shop))
    text = (tmp_path / "comparison.md").read_text()
    assert "**No verdict**: it takes --seeds=3" in text
    gains = text.partition("## AUC gains")[2].partition("\n## ")[0].splitlines()
    gains = [line for line in gains if " to " in line]
    assert gains and all(line.endswith("|  |  |") for line in gains)
    assert not any(word in text for word in ("holds", "Control:", "gains over"))


def test_an_interrupted_comparison_goes_on(shop, tmp_path):
    words = _words(shop, tmp_path / "all")
    first = Trainer(shop, interrupted_after=2)
    with pytest.raises(KeyboardInterrupt):
        _compare(words, first)
    # The third run had begun.
    assert not (tmp_path / "all" / "comparison.md").exists()
    second = Trainer(shop)
    result = _compare(words, second)
    assert len(first.run_dirs) == 2 and len(second.run_dirs) == 10
    assert not set(first.run_dirs) & set(second.run_dirs)
    aucs = [_auc(shop, path) for path in first.run_dirs + second.run_dirs]
    means = [arm["test"]["auc"]["mean"] for arm in result["arms"]]
    assert means == pytest.approx(np.reshape(aucs, (4, 3)).mean(axis=1).tolist())
    assert not list(tmp_path.glob("all/third-*"))  # which only a search needs
    third = Trainer(shop)
    _compare(_words(shop, tmp_path / "all", "--seeds=4"), third)
    assert len(third.run_dirs) == 4
    with pytest.raises(InputError, match="with --epochs=5, now --epochs=6"):
        _compare(_words(shop, tmp_path / "all", "--epochs=6"), third)


def test_the_search_keeps_the_best_third(shop, tmp_path, capsys):
    trainer = Trainer(shop)
    result = _compare(_words(shop, tmp_path, "--search_trials=4"), trainer)
    # Of each arm five trials on a third, then three on all: the command's own, and of
    # the four others the best third, rounded up. The chosen is the first seed's run.
    assert len(trainer.run_dirs) == 4 * (5 + 3 + 2)
    assert f"{4 * (5 + 3 + 2)} runs in " in capsys.readouterr().out
    (third,) = tmp_path.glob("third-*")
    on_third = [data_dir == str(third) for data_dir in trainer.data_dirs[:10]]
    assert on_third == [True] * 5 + [False] * 5
    first = result["arms"][0]
    assert [trial["settings"] for trial in first["trials"]] == [
        trial["settings"] for trial in result["arms"][3]["trials"]
    ]
    dropouts = np.array([trial["settings"]["dropout"] for trial in first["trials"]])
    aucs = [trial["third_auc"] for trial in first["trials"]]
    assert aucs == pytest.approx((0.6 + dropouts / 10).tolist())
    whole = {p for p, t in enumerate(first["trials"]) if t["validation_auc"]}
    assert whole == {0, *np.argsort(-dropouts[1:])[:2] + 1}
    assert first["chosen_trial"] == np.argmax(dropouts) != 0
    assert f"--dropout={max(dropouts)}" in first["flags"]
    text = (tmp_path / "comparison.md").read_text()
    dropped = min({*range(5)} - whole)
    best, own, other = (f"{auc:.4f}" for auc in (max(aucs), aucs[0], aucs[dropped]))
    assert f"| {other} |" in text
    assert f"**{best} → {best}**" in text and f"| {own} → {own} |" in text
    gain = f"{max(aucs) - aucs[0]:+.4f}"
    assert f"over the command's own settings: din {gain}, hcm {gain}," in text
    # What is there already is not trained again, wherever it is now.
    again = Trainer(shop)
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    moved = os.path.relpath(moved)
    _compare(_words(shop, moved, "--search_trials=4"), again)
    assert not again.run_dirs


def test_trees_beside_networks(shop, tmp_path):
    """They have no epochs, and no settings to search."""
    trainer = Trainer(shop)
    arms = "trees,din,hccm,trees --similarity=cosine"
    result = _compare(_words(shop, tmp_path, "--search_trials=2", arms=arms), trainer)
    assert len(trainer.run_dirs) == 2 * (3 + 2 + 2) + 2 * 3
    plain, din, *_ = result["arms"]
    assert plain["settings"] == {} and plain["chosen_trial"] == 0
    assert [trial["validation_auc"] for trial in plain["trials"]] == [0.6] * 3
    text = (tmp_path / "comparison.md").read_text()
    assert text.startswith("# Comparison: din < hccm\n")
    (row,) = (
        row
        for row in result["comparisons"]
        if (row["arm"], row["base"]) == ("din", "trees")
    )
    low, high = row["interval"]
    told = f"{row['gain']:+.4f}, 95% [{low:+.4f}, {high:+.4f}]"
    told += f", corrected p {row['p_holm']:.4f}"
    assert f"**din is NOT shown to gain over trees**: {told}." in text
    assert "**hccm gains over trees --similarity=cosine**: " in text
    assert "\n| trees |  |  |  |  |\n" in text
    tried = din["trials"][1]["settings"]
    row = " | ".join(str(value) for value in tried.values())
    assert f"\n| {row} | 0.6000 | " in text and "settings: din +0.0" in text


def test_trees_alone_are_not_searched(shop, tmp_path):
    arms = "trees,trees --similarity=cosine"
    _compare(_words(shop, tmp_path, "--search_trials=2", arms=arms), Trainer(shop))
    text = (tmp_path / "comparison.md").read_text()
    assert "Nothing of trees is searched." in text
    assert "third of the users" not in text


def test_a_test_split_of_one_label_is_refused(shop, tmp_path):
    data, trainer = _without_clicks(shop, tmp_path, "test"), Trainer(shop)
    with pytest.raises(InputError, match="^--compare: split test has no click"):
        _compare(_words(shop, tmp_path / "all", f"--data_dir={data}"), trainer)
    assert not trainer.run_dirs


def test_a_control_of_trees_is_no_step(shop, tmp_path):
    trees = "trees --similarity=cosine"
    arms = f"{trees},{trees} --shuffle_images,din,hccm"
    _compare(_words(shop, tmp_path, arms=arms), Trainer(shop))
    text = (tmp_path / "comparison.md").read_text()
    assert text.startswith("# Comparison: din < hccm\n")
    assert "**The order din < hccm holds**" in text


def _without_clicks(shop, tmp_path, split):
    """A copy of the data folder in which a split's labels are all 0."""
    data = shutil.copytree(shop.data, tmp_path / "data")
    for file in DataFolder(data).files(split):
        records = [*tf.data.TFRecordDataset(file).as_numpy_iterator()]
        with tf.io.TFRecordWriter(file) as writer:
            for record in map(tf.train.Example.FromString, records):
                labels = record.features.feature["label"].int64_list.value
                labels[:] = [0] * len(labels)
                writer.write(record.SerializeToString())
    return data


def test_without_auc_on_validation_nothing_is_chosen(shop, tmp_path):
    """A search is refused; what is not searched is compared on test."""
    data = _without_clicks(shop, tmp_path, "validation")
    trainer = Trainer(shop, validation_auc=float("nan"))

    def words(*more):
        return _words(shop, tmp_path, f"--data_dir={data}", *more, arms="din,hccm")

    with pytest.raises(InputError, match="--search_trials: .*validation.* no click"):
        _compare(words("--search_trials=2"), trainer)
    assert not trainer.run_dirs
    result = _compare(words(), trainer)
    assert len(trainer.run_dirs) == 6 and result["arms"][0]["chosen_trial"] == 0


def test_a_failed_trial_is_not_chosen(shop, tmp_path):
    best = max(draw_settings(2)[1:], key=lambda drawn: drawn["dropout"])
    trainer = Trainer(shop, lambda flags: flags.dropout == best["dropout"])
    result = _compare(_words(shop, tmp_path, "--search_trials=2"), trainer)
    settings = [arm["settings"]["dropout"] for arm in result["arms"]]
    assert 0 < settings[0] < best["dropout"] and len(set(settings)) == 1
    assert "| failed |" in (tmp_path / "comparison.md").read_text()


def test_failed_runs_are_named_and_the_others_kept(shop, tmp_path, capsys):
    words = _words(shop, tmp_path)
    broken = Trainer(shop, lambda f: f.model == "din" and f.seed == 6)
    with pytest.raises(InputError, match=r"runs failed: \S*din\S*seed-6\. The others"):
        _compare(words, broken)
    assert len(broken.run_dirs) == 12
    assert "din, trial 0, seed 6: failed" in capsys.readouterr().out
    broken = Trainer(shop, lambda f: f.model == "hcm")
    with pytest.raises(InputError, match="all trials of hcm"):
        _compare(_words(shop, tmp_path / "other"), broken)
    mended = Trainer(shop)
    _compare(words, mended)
    assert len(mended.run_dirs) == 1


def test_matplotlib_is_missed_before_anything_is_trained(shop, tmp_path, monkeypatch):
    import hccm_tf.comparison

    monkeypatch.delitem(sys.modules, "hccm_tf.comparison.plots", raising=False)
    monkeypatch.delattr(hccm_tf.comparison, "plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    trainer = Trainer(shop)
    with pytest.raises(InputError, match=r"hccm_tf\[compare\]"):
        _compare(_words(shop, tmp_path / "all"), trainer)
    assert not trainer.run_dirs and not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, "{", "[]", '{"test": {"auc": 0.8}}'])
def test_an_oracle_that_is_none(shop, tmp_path, content):
    path, trainer = tmp_path / "oracle.json", Trainer(shop)
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=rf"oracle={path}: cannot be read"):
        _compare(_words(shop, tmp_path, f"--oracle={path}"), trainer)
    assert not trainer.run_dirs


@pytest.mark.parametrize(
    ("arms", "error"),
    [
        ("din,hccm", "arm 'hccm': .*--feature_maps"),
        ("din,hccm --feature_maps=no_such", "arm 'hccm --feature_maps=.*no_such"),
        ("din,cscnn", "arm 'cscnn': .*--image_dir"),
        ("din,cscnn --image_dir=no_such", "arm 'cscnn --image_dir=.*no_such"),
        (
            "din,hccm --feature_maps=MAPS --noprior_channel --nochannel_attention",
            "arm 'hccm --feature_maps=.*: model hccm: .*prior_channel=False",
        ),
        ("base,din,din --cnn_filters=9", "arm 'din --cnn_filters=9'.*model din"),
        ("din,din --dropout=0", "the same model with the same settings"),
        (
            "din,trees --similarity=cosine",
            "arm 'trees --.*: --feature_maps: model trees needs",
        ),
        ("din,trees --shuffle_images", "arm 'trees --.*: --shuffle_images: trees see"),
    ],
)
def test_every_arm_is_checked_before_the_first_is_trained(shop, tmp_path, arms, error):
    arms = arms.replace("MAPS", str(shop.maps))
    words = _words(shop, tmp_path / "all", arms=arms)
    words = [word for word in words if not word.startswith("--feature_maps")]
    trainer = Trainer(shop)
    with pytest.raises(InputError, match=error) as raised:
        _compare(words, trainer)
    assert "\n" not in str(raised.value)
    assert not trainer.run_dirs and not list(tmp_path.iterdir())


def test_an_arm_whose_model_does_not_fit_the_schema(shop, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(shop.data, data)
    schema = shop.schema
    kept = tuple(f for f in schema.features if not f.name.endswith("category"))
    vocabularies = {k: v for k, v in schema.vocabularies.items() if k != "category"}
    dataclasses.replace(schema, features=kept, vocabularies=vocabularies).save(data)
    assert "category" not in Schema.load(data)
    words = _words(shop, tmp_path / "all", f"--data_dir={data}", arms="hcm,hccm")
    trainer = Trainer(shop)
    with pytest.raises(InputError, match="arm 'hccm': .*needs category"):
        _compare(words, trainer)
    assert not trainer.run_dirs and not (tmp_path / "all").exists()


def test_train_main_compares(shop, tmp_path, monkeypatch):
    values = parsed(
        *("--compare=base,base --dropout=0.2", "--seeds=1", "--search_trials=0"),
        *("--epochs=1", "--batch_size=525", "--hidden_units=4"),
        *(f"--data_dir={shop.data}", f"--run_dir={tmp_path}"),
    )
    monkeypatch.setattr(train_main, "FLAGS", values)
    monkeypatch.setattr(sys, "argv", [train_main.__file__])
    commands = []

    def run(command, stdout, stderr, env):
        # Where models of the user's own are found.
        assert env["PYTHONPATH"].split(os.pathsep) == [*filter(None, sys.path)]
        commands.append(command[:2])
        process = processes.Process(command[1:], stdout.name, stderr.name)
        return subprocess.CompletedProcess(command, process.wait())

    monkeypatch.setattr(subprocess, "run", run)
    train_main.main([])
    assert commands == [[sys.executable, train_main.__file__]] * 2
    content = json.loads((tmp_path / "comparison.json").read_text())
    variant = content["comparisons"][0]
    assert (variant["kind"], variant["base"]) == ("variant", "base")
    assert content["arms"][1]["runs"][0]["training"]["epochs"] == 1
    assert content["impressions"] == 300
    assert (tmp_path / "comparison.html").is_file()
