"""Ids that share one 64-bit fingerprint: never merged, and no reason to end a build."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hccm_tf.data.feature_kinds import OOV
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.feature_maps.extract import read_images
from hccm_tf.preparation.validation.validate import validate
from tests.preparation.examples.logs import make_items, make_log, read_impressions
from tests.reference import COLLIDING, fingerprint, histories

COMMON, RARE = COLLIDING[0]
ITEMS = ["a", COMMON, RARE, "d", "e"]
SPLITS = "train", "validation", "test"


def _log(count=200):
    """A log in which of two users, items and queries of one key one is rarer."""
    log = make_log(count)
    users = np.array(["", "x", COMMON, RARE])
    log["user_id"] = users[log.user_id]
    log["item_id"] = np.array(ITEMS)[log.item_id - 1]
    for name in ("user_id", "item_id"):
        seldom = (log[name] == RARE) & (log.split == "train") & (log.index % 3 > 0)
        log.loc[seldom, name] = COMMON
    return log.assign(query=np.array([COMMON, COMMON, RARE, "y"])[log.index % 4])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A data folder, its tables, and what was printed."""
    folder = tmp_path_factory.mktemp("collisions")
    items = make_items(item_id=ITEMS, image=[RARE, COMMON, COMMON, "", "c"])
    log = _log()
    summary = build_examples(items, log, folder / "data", num_shards=3)
    return folder / "data", items, log, summary


def _are_known(data, name):
    return (DataFolder(data).schema().index(name, [COMMON, RARE]) > OOV).numpy()


def _rows(data, *names):
    for split in SPLITS:
        for (row,), *values in read_impressions(data, split, "row", *names):
            yield row, *values


def _texts(values):
    return [value.decode() for value in values]


def test_each_keeps_its_own(built):
    data, _, log, _ = built
    log["history"] = histories(log, 100)
    keys = {}
    names = "item_id", "query", "user_id", "user_key", "history_item_id"
    for row, item, query, (user,), (key,), history in _rows(data, *names):
        assert _texts([*item, *query, user]) == [
            log[name][row] for name in ("item_id", "query", "user_id")
        ]
        assert _texts(history) == log.item_id[log.history[row]].tolist()
        assert keys.setdefault(user.decode(), key) == key
    # Metrics by user and `validate` know users by their keys.
    assert keys[COMMON] == fingerprint(COMMON)
    assert len({*keys.values()}) == len(keys) == 3


def test_the_rarer_is_out_of_vocabulary(built):
    data, _, _, summary = built
    for name in ("user_id", "item_id", "query"):
        assert _are_known(data, name).tolist() == [True, False]
    warnings = "\n".join(summary["warnings"])
    for name in ("user_id", "item_id", "query"):
        assert f"warning: column {name}: {RARE!r} is out-of-vocabulary" in warnings
    assert len(summary["warnings"]) == 4  # and the photos


def test_the_rarer_photo_is_no_image(built, tmp_path, capsys):
    data, items, log, summary = built
    warning = f"warning: images: {RARE!r} is no image"
    assert any(line.startswith(warning) for line in summary["warnings"])
    catalogue = pq.read_table(data / "catalogue.parquet")
    assert catalogue["image"].to_pylist() == items.image.tolist()
    keys = [0, fingerprint(COMMON), fingerprint(COMMON), 0, fingerprint("c")]
    assert catalogue["image_key"].to_pylist() == keys
    for row, image in _rows(data, "image"):
        assert image == (keys[ITEMS.index(log.item_id[row])],)
    # The feature maps are of the same.
    items.to_csv(tmp_path / "items.csv", index=False)
    assert read_images(tmp_path / "items.csv") == [COMMON, "c"]
    assert warning in capsys.readouterr().out


def test_it_is_valid(built):
    assert validate(built[0])[1] == []


def test_what_training_has_not_seen(tmp_path):
    """Ids of another one's key in the other splits, in histories, in no catalogue."""
    log = _log(60).drop(columns="timestamp")
    log.loc[(log.split == "train") & (log.user_id == RARE), "user_id"] = "z"
    log["history_item_id"] = [[COMMON, RARE, "e"], [RARE], [], ["a"]] * 15
    log.loc[56:, "user_id"] = [COMMON, RARE] * 2
    log.loc[56:, "item_id"] = [COMMON, RARE, COMMON, COMMON]
    items = make_items(item_id=ITEMS)
    items = items[items.item_id != RARE]
    summary = build_examples(items, log, tmp_path / "data")
    assert summary["skipped"]["unknown_item"] == (log.item_id == RARE).sum()
    for row, item, history in _rows(tmp_path / "data", "item_id", "history_item_id"):
        assert _texts(item) == [log.item_id[row]]
        expected = [other for other in log.history_item_id[row] if other != RARE]
        assert _texts(history) == expected
    (warning,) = (line for line in summary["warnings"] if "fingerprint" in line)
    assert "column query" in warning
    for name in ("user_id", "item_id"):
        assert _are_known(tmp_path / "data", name).tolist() == [True, False]


@pytest.mark.parametrize("num_shards", [1, 3])
def test_requests(tmp_path, num_shards):
    log = make_log(60, users=8)
    log["request_id"] = log.user_id.astype(str) + "/" + log.timestamp.astype(str)
    shown = log[log.split == "train"].drop_duplicates("request_id")
    mine, other = (shown[(shown.user_id == 1) == is_mine] for is_mine in (True, False))
    # Two requests of one user, and of two users in other shards.
    old = [*mine.request_id[:2], mine.request_id.iloc[2], other.request_id.iloc[0]]
    log["request_id"] = log.request_id.replace(
        dict(zip(old, np.ravel(COLLIDING), strict=True))
    )
    data = tmp_path / "data"
    build_examples(make_items(), log, data, num_shards=num_shards)
    found = read_impressions(data, "train", "row", "user_id")
    assert len(found) == (log.split == "train").sum()
    records = sum(
        -(-size // DataFolder(data).max_candidates)
        for size in log[log.split == "train"].request_id.value_counts()
    )
    assert DataFolder(data).num_requests("train") == records
    two = pd.Series(COLLIDING[1])
    log["request_id"] = log.request_id.replace(two[1], two[0])
    with pytest.raises(InputError, match="a request of two users"):
        build_examples(make_items(), log, tmp_path / "bad", num_shards=num_shards)
