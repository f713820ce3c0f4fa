import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from hccm_tf.comparison.slices import (
    make_slices,
    read_columns,
    read_slices,
    slice_auc,
    thirds,
)


def test_slices_of_the_test_split(shop):
    test, slices = read_slices(shop.data)
    part = shop.log[shop.log.split == "test"].reset_index(drop=True)
    np.testing.assert_array_equal(test.user_key, part.user_id)
    np.testing.assert_array_equal(test.label, part.label)
    assert (test.weight == 1).all()
    np.testing.assert_array_equal(test.row, np.flatnonzero(shop.log.split == "test"))
    train = shop.log[shop.log.split == "train"].item_id.tolist()
    shown = part.item_id.map(train.count)
    lengths = part.history.map(len)
    warm = sorted(shown[shown > 0])
    low, high = warm[(len(warm) - 1) // 3], warm[2 * (len(warm) - 1) // 3]
    # Over half of these histories are full, which leaves the others for the short ones.
    assert (lengths == 8).mean() > 2 / 3
    expected = {
        "cold items (0 training impressions)": shown == 0,
        f"rare items (1 to {low} training impressions)": (shown > 0) & (shown <= low),
        f"popular items ({high} to {max(warm)} training impressions)": shown >= high,
        f"short histories ({lengths.min()} to 7 clicks)": lengths < 8,
        "long histories (8 clicks)": lengths == 8,
    }
    assert 0 < expected["cold items (0 training impressions)"].sum() < len(part)
    assert list(slices) == list(expected)
    for name, mask in expected.items():
        np.testing.assert_array_equal(slices[name], mask, name)


def test_slices_of_requests(weighted_shop):
    test, slices = read_slices(weighted_shop.data)
    log = weighted_shop.log
    # The order of the records, which predictions have too.
    assert sorted(test.row) == np.flatnonzero(log.split == "test").tolist()
    shown = log.loc[test.row, ["user_id", "timestamp"]].drop_duplicates()
    expected = log.loc[log.split == "test", ["user_id", "timestamp"]]
    assert len(shown) == len(expected.drop_duplicates()) < len(test)
    part = log.loc[test.row].reset_index(drop=True)
    np.testing.assert_array_equal(test.user_key, part.user_id)
    np.testing.assert_array_equal(test.label, part.label)
    np.testing.assert_array_equal(test.weight, part.weight)
    train = log[log.split == "train"].item_id.tolist()
    cold = part.item_id.map(train.count) == 0
    np.testing.assert_array_equal(slices["cold items (0 training impressions)"], cold)
    assert 0 < cold.sum() < len(part)
    lengths = part.history.map(len)
    names = [name for name in slices if "histories" in name]
    for name, most in zip(names, (lengths.min, lengths.max), strict=True):
        assert slices[name][lengths == most()].all() and not slices[name].all()


def test_columns_of_requests(weighted_shop):
    names = ["row", "weight", "hour", "position", "price", "history_length", "label"]
    found = read_columns(weighted_shop.data, "train", names)
    part = weighted_shop.log.loc[found.row].reset_index(drop=True)
    assert set(part.split) == {"train"}
    assert len(part) == (weighted_shop.log.split == "train").sum()
    part["history_length"] = part.history.map(len)
    for name in ("weight", "hour", "position", "history_length", "label"):
        np.testing.assert_array_equal(found[name], part[name], name)
    np.testing.assert_allclose(found.price, part.price, rtol=1e-6)
    few = read_columns(weighted_shop.data, "train", ["label", "weight"])
    pd.testing.assert_frame_equal(few[["weight", "label"]], found[["weight", "label"]])


def test_data_without_item_ids_has_the_histories_only(shop, tmp_path):
    shutil.copytree(shop.data, tmp_path / "data")
    features = [f for f in shop.schema.features if not f.name.endswith("item_id")]
    schema = dataclasses.replace(shop.schema, features=tuple(features))
    schema.save(tmp_path / "data")
    _, slices = read_slices(tmp_path / "data")
    assert [name.split(" (")[0] for name in slices] == [
        "short histories",
        "long histories",
    ]


@pytest.mark.parametrize(
    ("values", "lowest", "highest"),
    [
        ([1, 2, 3, 4, 5, 6], [1, 2], [4, 5, 6]),
        ([1, 1, 1, 2, 3, 4], [1, 1, 1], [2, 3, 4]),
        ([1, 2, 9, 9, 9, 9, 9], [1, 2], [9] * 5),
        ([1, 1, 1, 1, 1, 8, 9], [1] * 5, [8, 9]),
        ([3, 3, 3], [3, 3, 3], []),
    ],
)
def test_thirds_keep_equal_values_together(values, lowest, highest):
    values = np.array(values)
    masks = thirds(values)
    assert [values[mask].tolist() for mask in masks] == [lowest, highest]


def test_all_items_cold():
    test = pd.DataFrame({"item_id": [7, 8], "history_length": [0, 3]})
    slices = make_slices(test, pd.Series([1, 2]))
    assert slices["cold items (0 training impressions)"].all()
    assert len(slices) == 3


def test_auc_of_a_slice():
    rng = np.random.default_rng(0)
    scores = rng.random((2, 60))
    test = pd.DataFrame({"label": rng.integers(2, size=60), "weight": 1.0})
    expected = [roc_auc_score(test.label, run) for run in scores]
    assert slice_auc(test, scores) == pytest.approx(expected)
    test["weight"] = rng.choice([0.0, 0.5, 2.0], 60)
    known = {"sample_weight": test.weight}
    weighted = [roc_auc_score(test.label, run, **known) for run in scores]
    assert weighted != pytest.approx(expected)
    assert slice_auc(test, scores) == pytest.approx(weighted)
    for none in (test[test.label == 1], test[:0], test.assign(weight=1.0 - test.label)):
        assert slice_auc(none, scores[:, : len(none)]) is None
