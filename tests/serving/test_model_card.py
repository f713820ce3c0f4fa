"""The card of an export against metrics, schema, log and signatures."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from hccm_tf.metrics import evaluate_frame
from hccm_tf.serving import model_card as model_card_module
from hccm_tf.serving.export import encode_images_of, item_table_of
from hccm_tf.serving.model_card import Origin, model_card
from hccm_tf.serving.signatures import Signatures
from hccm_tf.verdict import aucs as aucs_module
from hccm_tf.verdict.aucs import auc_with_interval, aucs_of
from tests.conftest import TINY

METRICS = ("auc", "gauc", "log_loss", "calibration")


@pytest.fixture(scope="module")
def frames(shop, fitted):
    """Split → predictions of `hccm`, of the test split with the log's ids."""
    found = {
        split: fitted["hccm"].predictions(shop.data, split)
        for split in ("validation", "test")
    }
    for name in ("user_id", "item_id"):
        found["test"][name] = shop.log[name][found["test"].row].to_numpy()
    return found


@pytest.fixture(scope="module")
def signatures(shop, fitted):
    trained = fitted["hccm"].fitted_.trained
    return Signatures(
        trained.definition,
        trained.definition.forms(trained.keras_model),
        encode_images_of(trained, shop.data, shop.store, "int8"),
        item_table_of(trained, shop.data),
    )


@pytest.fixture(scope="module")
def origin(fitted, frames):
    metrics = {split: evaluate_frame(frame) for split, frame in frames.items()}
    metrics["training"] = {"seconds": 12.3, "epochs": 4, "parameters": 5}
    lines = ["Better than a constant: so much.", "Next: more."]
    metrics["verdict"] = {"lines": lines}
    # As a run keeps them.
    metrics = json.loads(json.dumps(metrics))
    trained = fitted["hccm"].fitted_.trained
    aucs = aucs_of(trained.schema, *frames.values())
    return Origin("my_run", trained.configuration, metrics, aucs)


@pytest.fixture(scope="module")
def card(shop, fitted, signatures, origin):
    trained = fitted["hccm"].fitted_.trained
    return model_card(trained, shop.data, signatures, origin)


def rows_of(card, heading):
    """First cell → the others, of the tables of a section."""
    (section,) = [s for s in card.split("\n## ") if s.startswith(heading)]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def test_metrics_are_those_of_the_run(card, origin, frames, shop):
    rows = rows_of(card, "Metrics")
    for split, frame in frames.items():
        impressions, auc, interval, *others = rows[split]
        assert impressions == f"{len(frame):,}"
        found = [origin.metrics[split][name] for name in METRICS]
        assert [auc, *others] == [f"{value:.4f}" for value in found]
        low, high = map(float, interval.split(" to "))
        assert low < found[0] < high
    trained_on = shop.log[shop.log.split == "train"]
    for name, what in (("item_id", "items"), ("user_id", "users")):
        test = frames["test"]
        is_new = ~test[name].isin(trained_on[name])
        for part, word in ((test[is_new], "new"), (test[~is_new], "known")):
            row = rows.get(f"test, {word} {what}")
            assert (row is not None) == bool(len(part))
            if row is not None:
                assert row[0] == f"{len(part):,}"
                assert row[1] == f"{roc_auc_score(part.label, part.ctr):.4f}"
    assert frames["test"].item_id.isin(trained_on.item_id).mean() < 1
    assert "- Better than a constant: so much." in card and "Next:" not in card


def test_intervals_are_a_bootstrap_over_users():
    """Of users whom the model understands more or less, each with many rows."""
    rng = np.random.default_rng(5)
    users, labels = np.repeat(np.arange(25), 40), rng.integers(2, size=1_000)
    scores = rng.normal(1, 1.5, 25)[users] * labels + rng.normal(size=1_000)
    frame = pd.DataFrame(
        {"user_key": users, "label": labels, "ctr": scores, "weight": 1.0}
    )
    aucs = []
    for _ in range(400):
        drawn = rng.integers(25, size=25)
        rows = (drawn[:, None] * 40 + np.arange(40)).reshape(-1)
        aucs.append(roc_auc_score(labels[rows], scores[rows]))
    found = auc_with_interval(frame)
    expected = roc_auc_score(labels, scores)
    assert found["auc"] == pytest.approx(expected)
    low, high = found["interval"]
    assert (low + high) / 2 == pytest.approx(expected)
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(aucs), rel=0.2)
    # Of two users the model understands one.
    few = frame.assign(ctr=np.where(users == 0, labels, 0.5))[:80]
    few = auc_with_interval(few)
    assert few["interval"][0] < few["auc"] < few["interval"][1] == 1
    one_label = auc_with_interval(frame[frame.label == 1])
    assert np.isnan(one_label["auc"]) and one_label["interval"] is None


def test_what_is_too_much_is_not_read(shop, fitted, signatures, frames, monkeypatch):
    monkeypatch.setattr(model_card_module, "MOST_READ", 299)
    monkeypatch.setattr(aucs_module, "MOST_RESAMPLED", 299)
    trained = fitted["hccm"].fitted_.trained
    rows = rows_of(model_card(trained, shop.data, signatures), "Data")
    counts = shop.log.split.value_counts()
    assert {s for s in rows if rows[s][1:] == ["not read"] * 3} == set(
        counts.index[counts > 299]
    )
    found = aucs_of(trained.schema, None, frames["test"])
    assert {name for name, of in found.items() if of["interval"] is None} >= {"test"}


def test_data_are_those_of_the_log(card, shop):
    rows = rows_of(card, "Data")
    for split, of_split in shop.log.groupby("split"):
        days = pd.to_datetime(of_split.timestamp, unit="s").dt.strftime("%Y-%m-%d")
        assert rows[split] == [
            f"{len(of_split):,}",
            f"{of_split.label.mean():.4f}",
            *(days.min(), days.max()),
        ]
    assert f"Folder `{shop.data.name}`" in card and str(shop.data) not in card


def test_model_and_signatures_are_the_exports(card, shop, signatures):
    (line,) = [line for line in card.splitlines() if "differ from the defaults" in line]
    flags = line.partition("`")[2].strip("`").split()
    written = {flag.partition("=")[0].lstrip("-") for flag in flags}
    given = {"epochs", "batch_size", "learning_rate", "similarity"}
    # What an image of the shop's own size asks for is no default either.
    assert given | set(TINY) == written
    assert "--similarity=cosine" in flags and "--hidden_units=8" in flags
    assert "\n- run `my_run`: 4 epochs, 12 seconds of training\n" in card
    store = shop.store
    for name in ("backbone", "layer", "weights_sha256", "image_size"):
        assert str(store.cnn[name]) in card
    pairs = shop.items[shop.items.image.isin(read_images(shop))]
    pairs = pairs.drop_duplicates(["image", "category"])
    assert f"- {len(pairs)} photos, as int8 vectors of 6 numbers" in card
    spec = signatures.endpoints()["serving_default"][1]
    inputs = rows_of(card, "How to ask")
    assert {name.strip("`") for name in inputs} >= set(spec)
    for name, tensor in spec.items():
        assert inputs[f"`{name}`"][0] == tensor.dtype.name


def read_images(shop):
    return pd.read_parquet(shop.maps / "images.parquet").image


def test_what_is_not_known_is_said(shop, fitted, signatures, origin, frames, tmp_path):
    trained = fitted["hccm"].fitted_.trained
    text = model_card(trained, shop.data, signatures)
    assert "exported without the metrics of a run" in text
    assert "nan" not in text and "None," not in text
    # A run that is taken as it is has kept the test split's predictions only.
    aucs = aucs_of(trained.schema, None, frames["test"].drop(columns="user_id"))
    assert all("users" not in name for name in aucs)
    known = Origin("my_run", origin.configuration, origin.metrics, aucs)
    rows = rows_of(model_card(trained, shop.data, signatures, known), "Metrics")
    assert rows["validation"][2] == "not kept" and " to " in rows["test"][2]
