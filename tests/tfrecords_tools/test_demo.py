import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, pearsonr
from sklearn.metrics import roc_auc_score

from tfrecords_tools.demo.shop import (
    ATTRIBUTES,
    CATEGORIES,
    make_demo,
    make_impressions,
    make_items,
)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(7)
    items = make_items(4000, rng)
    return items, make_impressions(items, 300, 30_000, rng)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_no_visible_column_tells_a_hidden_attribute(world, attribute):
    items, _ = world
    values = items[f"_{attribute}"]
    assert values.nunique() == len(ATTRIBUTES[attribute])
    visible = {
        "category": items.category,
        "price": pd.qcut(items.price, 8, labels=False),
        "item_id": pd.qcut(items.item_id, 8, labels=False),
        "place": np.arange(len(items)) * 8 // len(items),
    }
    for name, column in visible.items():
        assert chi2_contingency(pd.crosstab(column, values)).pvalue > 1e-3, name


def test_hidden_attributes_are_hidden_and_independent(world):
    items, _ = world
    for one in ATTRIBUTES:
        for other in ATTRIBUTES:
            if one < other:
                table = pd.crosstab(items[f"_{one}"], items[f"_{other}"])
                assert chi2_contingency(table).pvalue > 1e-3


def test_enough_categories_for_every_attribute(world):
    assert world[0].category.nunique() == len(CATEGORIES) >= 8
    assert set(CATEGORIES.values()) == set(ATTRIBUTES)


def test_the_oracle_is_calibrated(world):
    _, log = world
    for _, part in log.groupby(pd.qcut(log.ctr, 10)):
        error = np.sqrt((part.ctr * (1 - part.ctr)).sum()) / len(part)
        assert abs(part.label.mean() - part.ctr.mean()) < 4.5 * error
    assert roc_auc_score(log.label, log.ctr) > 0.7


def test_what_a_user_likes_is_the_attribute_of_the_category(world):
    items, log = world
    log = log.merge(items, on="item_id")
    user = log.user_id[log.user_id.map(log.user_id.value_counts()) > 150]
    log = log[log.user_id.isin(user)]
    spread = {}
    for attribute in ATTRIBUTES:
        counts = log.category.map(CATEGORIES) == attribute
        for relevant, part in ((True, log[counts]), (False, log[~counts])):
            rate = part.groupby(["user_id", f"_{attribute}"]).ctr.mean()
            spread[attribute, relevant] = rate.groupby("user_id").std().mean()
    for attribute in ATTRIBUTES:
        assert spread[attribute, True] > 3 * spread[attribute, False]


def test_log_is_in_order_of_time_and_test_has_unseen_items(world):
    _, log = world
    assert log.timestamp.is_monotonic_increasing
    seen = set(log.item_id[log.split == "train"])
    unseen = ~log.item_id[log.split == "test"].isin(seen)
    assert 0.05 < unseen.mean() < 0.6
    order = log.split.map({"train": 0, "validation": 1, "test": 2})
    assert order.is_monotonic_increasing
    assert set(log.split) == {"train", "validation", "test"}


def test_position_in_the_log_tells_no_label(world):
    _, log = world
    assert abs(pearsonr(log.timestamp, log.label).statistic) < 0.03


def test_same_seed_same_files(shop, tmp_path):
    make_demo(tmp_path / "one", 60, 20, 1500, seed=0)
    make_demo(tmp_path / "other", 60, 20, 1500, seed=1)
    files = sorted(path for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 64
    twin = tmp_path / "twin"
    make_demo(twin, 60, 20, 1500, seed=0)
    for file in files:
        name = file.relative_to(tmp_path / "one")
        assert file.read_bytes() == (twin / name).read_bytes(), name
        assert file.read_bytes() != (tmp_path / "other" / name).read_bytes(), name


def test_files_hide_the_truth(tmp_path):
    oracle = make_demo(tmp_path / "shop", 30, 5, 200, seed=0)
    items = pd.read_csv(tmp_path / "shop" / "items.csv")
    impressions = pd.read_csv(tmp_path / "shop" / "impressions.csv")
    truth = pd.read_csv(tmp_path / "shop" / "oracle.csv")
    assert list(items) == ["item_id", "image", "category", "price"]
    assert "ctr" not in impressions
    pd.testing.assert_frame_equal(truth.drop(columns="ctr"), impressions)
    test = truth[truth.split == "test"]
    assert oracle["auc"] == pytest.approx(roc_auc_score(test.label, test.ctr))
    assert json.loads((tmp_path / "shop" / "oracle.json").read_text()) == oracle


def test_the_smallest_shop(tmp_path):
    make_demo(tmp_path / "shop", len(CATEGORIES), 1, 20, seed=0)
    assert len(pd.read_csv(tmp_path / "shop" / "impressions.csv")) == 20
