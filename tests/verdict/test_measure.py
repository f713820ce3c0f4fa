"""The numbers of a verdict, against the log."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from hccm_tf.configuration import configure
from hccm_tf.trees.fit import fit_trees
from hccm_tf.verdict.measure import measure

HISTORY = pd.DataFrame({"val_auc": [0.6, 0.7, 0.7, 0.5], "val_log_loss": [4, 3, 2, 1]})


@pytest.fixture(scope="module")
def frames(shop, fitted):
    """Predictions of `din` on validation and test."""
    splits = ("validation", "test")
    return [fitted["din"].predictions(shop.data, split) for split in splits]


@pytest.fixture(scope="module")
def figures(fitted, frames):
    return measure(fitted["din"].fitted_, *frames, HISTORY)


def test_a_constant_and_popularity(shop, frames, figures):
    test, train = frames[1], shop.log[shop.log.split == "train"]
    rate = train.label.mean()
    constant = figures["constant"]
    assert constant["click_rate"] == pytest.approx(rate)
    assert constant["log_loss"] == pytest.approx(log_loss(test.label, test.ctr))
    expected = log_loss(test.label, np.full(len(test), rate))
    assert constant["base_log_loss"] == pytest.approx(expected)
    sums = train.groupby("item_id").label.agg(["sum", "count"])
    rates = (sums["sum"] + 20 * rate) / (sums["count"] + 20)
    scores = shop.log.item_id[test.row].map(rates).fillna(rate)
    popularity = figures["popularity"]
    expected = roc_auc_score(test.label, scores)
    assert popularity["base_auc"] == pytest.approx(expected)
    assert popularity["auc"] == pytest.approx(roc_auc_score(test.label, test.ctr))
    assert popularity["interval"][0] < popularity["gain"] < popularity["interval"][1]


def test_trees(shop, frames, figures):
    """Those of a run: the shop is small enough."""
    trees = fit_trees(configure("trees", {}, data_dir=shop.data))
    assert figures["trees"]["base_auc"] == pytest.approx(trees.evaluate("test")["auc"])
    assert figures["trees"]["impressions"] == (shop.log.split == "train").sum()
    assert figures["trees"]["similarity"] == "none"


def test_training_against_validation(shop, fitted, frames, figures):
    validation, found = frames[0], figures["overfitting"]
    train = fitted["din"].predictions(shop.data, "train")
    # A batch more than there are impressions of validation.
    assert len(validation) <= found["impressions"] <= len(validation) + 128
    expected = roc_auc_score(validation.label, validation.ctr)
    assert found["base_auc"] == pytest.approx(expected)
    whole = roc_auc_score(train.label, train.ctr)
    assert abs(found["auc"] - whole) < 0.1 and found["auc"] != expected
    assert found["gain"] == pytest.approx(found["auc"] - found["base_auc"])


def test_the_epoch_that_was_kept(fitted, frames, figures):
    assert (figures["kept_epoch"], figures["epochs"]) == (2, 4)
    history = HISTORY.assign(val_auc=np.nan)
    figures = measure(fitted["din"].fitted_, *frames, history)
    assert (figures["kept_epoch"], figures["epochs"]) == (4, 4)


def test_a_split_with_one_label(fitted, frames):
    """What has an AUC is left out."""
    validation, test = (frame.assign(label=0.0) for frame in frames)
    figures = measure(fitted["din"].fitted_, validation, test, HISTORY)
    assert figures["popularity"] is figures["trees"] is figures["overfitting"] is None
    assert figures["constant"]["gain"] is not None
    test = test.assign(weight=0.0)
    figures = measure(fitted["din"].fitted_, validation, test, HISTORY)
    assert figures["constant"] is None
