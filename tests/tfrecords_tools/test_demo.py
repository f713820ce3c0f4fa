import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, pearsonr
from sklearn.metrics import roc_auc_score

from hccm_tf.errors import InputError
from tfrecords_tools.demo.shop import (
    ATTRIBUTES,
    CATEGORIES,
    make_demo,
    make_impressions,
    make_items,
)

# Of the tables that this shop had before there were requests.
TABLES = {
    "items.csv": "6044758834472f28b88e3c798b0c647d53ab93bb",
    "impressions.csv": "ef4eb99fe21dc83512eed0e969b8c2fb61619ae5",
}
CTR_SUM = 475.5432625169282


def _make_world(request_size, num_items=4000):
    rng = np.random.default_rng(7)
    items = make_items(num_items, rng)
    return items, make_impressions(items, 300, 30_000, rng, request_size)


@pytest.fixture(scope="module")
def world():
    return _make_world(1)


@pytest.fixture(scope="module")
def requests():
    """A log of ten items at a time."""
    return _make_world(10)[1]


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


def test_the_oracle_is_calibrated(world, requests):
    for log in (world[1], requests):
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


def test_a_moment_shows_different_items(world, requests):
    items, log = world
    moments = requests.groupby(["user_id", "timestamp"])
    assert (moments.size() == 10).all() and (moments.item_id.nunique() == 10).all()
    assert (moments[["hour", "split"]].nunique() == 1).all().all()
    assert (moments.label.nunique() == 2).mean() > 0.5
    assert requests.timestamp.is_monotonic_increasing
    # Otherwise it is the shop that it is with one item at a time.
    assert list(requests) == list(log) and len(requests) == len(log)
    for name in ("label", "ctr"):
        assert abs(requests[name].mean() - log[name].mean()) < 0.03
    pd.testing.assert_series_equal(
        requests.split.value_counts(), log.split.value_counts(), atol=10
    )
    entry = requests.item_id.map(items.set_index("item_id")._entry_day)
    assert (entry * 86_400 < requests.timestamp - 1_700_000_000 + 1).all()
    shares = [
        frame.item_id.isin(items.nlargest(400, "_popularity").item_id).mean()
        for frame in (log, requests)
    ]
    assert 0.9 * shares[0] < shares[1] < shares[0]


def test_the_last_moment_shows_what_is_left():
    items, log = _make_world(7, num_items=60)
    sizes = log.groupby("timestamp").size()
    assert sizes.iloc[-1] == 30_000 % 7 and sizes.iloc[:-1].min() == 7
    assert log.groupby(["user_id", "timestamp"]).item_id.nunique().max() == 7
    most = (items._entry_day == 0).sum() // 2
    assert len(_make_world(most, num_items=60)[1]) == 30_000
    message = f"request_size: .*60 items at most {most}, .*Received: {most + 1}"
    with pytest.raises(InputError, match=message):
        _make_world(most + 1, num_items=60)


def test_one_item_at_a_time_is_the_shop_that_it_was(tmp_path):
    make_demo(tmp_path / "shop", 60, 20, 1500, seed=0)
    found = {
        name: hashlib.sha256((tmp_path / "shop" / name).read_bytes()).hexdigest()[:40]
        for name in TABLES
    }
    assert found == TABLES
    truth = pd.read_csv(tmp_path / "shop" / "oracle.csv")
    assert truth.ctr.sum() == pytest.approx(CTR_SUM, rel=1e-9)


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


def test_files_hide_the_truth(tmp_path, capsys):
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
    assert f"oracle on test: auc {oracle['auc']:.4f}, gauc " in capsys.readouterr().out


def test_the_smallest_shop(tmp_path):
    make_demo(tmp_path / "shop", len(CATEGORIES), 1, 20, seed=0)
    assert len(pd.read_csv(tmp_path / "shop" / "impressions.csv")) == 20
