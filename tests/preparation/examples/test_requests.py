"""A record is a request: what a user saw at one moment, or under one `request_id`."""

import collections
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from tests.preparation.examples.logs import (
    candidate_columns,
    make_items,
    make_log,
    read_examples,
    read_impressions,
    read_rows,
)

SPLITS = ("train", "validation", "test")
# Few users, requests and seconds, so that all that can meet does.
EVENT = st.tuples(
    st.integers(0, 2), st.integers(0, 2), st.integers(0, 5), st.integers(0, 1)
)


def _requests(folder, split):
    """The rows of the log of each record, list of tuples."""
    return [rows for (rows,) in read_rows(folder, split, "row")]


def _log(**columns):
    """Requests of 3, 1 and 2 impressions in training, of 2 and 1 in the others."""
    return pd.DataFrame(
        {
            "user_id": [7, 7, 7, 8, 7, 7, 8, 8, 7],
            "item_id": [1, 2, 3, 1, 4, 5, 2, 3, 1],
            "timestamp": [5, 5, 5, 5, 9, 9, 9, 9, 12],
            "label": [0, 1, 0, 1, 0, 1, 0, 0, 1],
            "split": ["train"] * 6 + ["validation"] * 2 + ["test"],
            **columns,
        }
    )


def _reference(log, max_history):
    """Row → the items of its request's history, by the definition."""
    found = {}
    for row in log.itertuples():
        of_request = log[log.request_id == row.request_id]
        clicks = log[(log.user_id == row.user_id) & (log.label == 1)]
        clicks = clicks[clicks.timestamp < of_request.timestamp.min()]
        clicks = clicks.sort_values("timestamp", kind="stable")
        found[row.Index] = tuple(clicks.item_id[-max_history:])
    return found


def test_impressions_of_one_user_and_second(tmp_path):
    summary = build_examples(make_items(), _log(), tmp_path / "data")
    assert sorted(_requests(tmp_path / "data", "train")) == [(0, 1, 2), (3,), (4, 5)]
    assert _requests(tmp_path / "data", "validation") == [(6, 7)]
    assert _requests(tmp_path / "data", "test") == [(8,)]
    assert summary["splits"] == {"train": 6, "validation": 2, "test": 1}
    assert summary["requests"] == {"train": 3, "validation": 1, "test": 1}
    assert summary["max_candidates"] == 3 and not summary["weighted"]
    folder = DataFolder(tmp_path / "data")
    for split in SPLITS:
        assert folder.num_requests(split) == summary["requests"][split]
        assert folder.num_impressions(split) == summary["splits"][split]
    assert summary == json.loads((tmp_path / "data" / "summary.json").read_text())


def test_what_a_record_holds_once_and_what_of_each_candidate(tmp_path):
    log = _log(hour=3, price=[0.5, 1, 2, 3, 4, 5, 6, 7, 8])
    build_examples(make_items(), log, tmp_path / "data")
    (record,) = read_examples(tmp_path / "data", "validation")
    found = {}
    for name, feature in record.items():
        found[name] = list(getattr(feature, feature.WhichOneof("kind")).value)
    images = found.pop("image")
    assert len(set(images)) == 2
    assert found.pop("history_image") and found == {
        "user_key": [8],
        "user_id": [8],
        "hour": [3],
        "label": [0, 0],
        "row": [6, 7],
        "timestamp": [9, 9],
        "item_id": [2, 3],
        "category": [b"y", b"x"],
        "price": [6, 7],
        "history_item_id": [1],
        "history_category": [b"x"],
    }


def test_rows_of_a_request_need_not_be_together(tmp_path):
    log = _log().iloc[[0, 3, 6, 1, 8, 4, 7, 2, 5]]
    build_examples(make_items(), log, tmp_path / "data")
    assert sorted(_requests(tmp_path / "data", "train")) == [(0, 3, 7), (1,), (5, 8)]
    assert _requests(tmp_path / "data", "validation") == [(2, 6)]


def test_a_user_and_second_in_two_splits_are_two_requests(tmp_path):
    log = _log(timestamp=5, user_id=7)
    build_examples(make_items(), log, tmp_path / "data")
    assert [len(_requests(tmp_path / "data", split)) for split in SPLITS] == [1, 1, 1]


def test_a_log_without_times_has_requests_of_user_and_history(tmp_path):
    histories = [[1, 2], [1, 2], [2, 1], [1, 2], [], [], [1, 2], [3], [1, 2]]
    log = _log().drop(columns="timestamp").assign(history_item_id=histories)
    build_examples(make_items(), log, tmp_path / "data")
    most = DataFolder(tmp_path / "data").max_candidates
    for split, rows in log.groupby("split"):
        groups = rows.groupby([rows.user_id, rows.history_item_id.map(tuple)])
        whole = [tuple(group.index) for _, group in groups]
        cut = [g[i : i + most] for g in whole for i in range(0, len(g), most)]
        assert sorted(_requests(tmp_path / "data", split)) == sorted(cut)
    log = log.assign(history_item_id=[[1, 2]] * 9)
    log = log.assign(request_id=[1, 1, 1, 2, 3, 3, 4, 4, 5])
    build_examples(make_items(), log, tmp_path / "named")
    assert sorted(_requests(tmp_path / "named", "train")) == [(0, 1, 2), (3,), (4, 5)]


@settings(max_examples=20, deadline=None)
@given(st.lists(EVENT, min_size=4, max_size=40), st.integers(1, 4), st.integers(1, 3))
def test_named_requests_and_their_histories(
    tmp_path_factory, events, max_history, shards
):
    # A leak would show here: requests last, and meet other requests of their user.
    folder = tmp_path_factory.mktemp("requests") / "data"
    log = make_log(len(events)).assign(split="train")
    log[["user_id", "request_id", "timestamp", "label"]] = events
    log.request_id = log.request_id + 10 * log.user_id - 15
    build_examples(
        make_items(),
        log,
        folder,
        max_history=max_history,
        splits=("train",),
        num_shards=shards,
    )
    expected = log.groupby("request_id").apply(lambda rows: tuple(rows.index))
    most = DataFolder(folder).max_candidates
    cut = [rows[i : i + most] for rows in expected for i in range(0, len(rows), most)]
    assert sorted(_requests(folder, "train")) == sorted(cut)
    found = dict(read_impressions(folder, "train", "row", "history_item_id"))
    assert found == {
        (row,): history for row, history in _reference(log, max_history).items()
    }
    assert "request_id" not in Schema.load(folder)


@pytest.mark.parametrize("as_type", [int, str, float])
def test_ids_of_requests_are_integers_or_text(tmp_path, as_type):
    ids = np.array([30, 30, 30, 2, 5, 5, -1, -1, 0]).astype(as_type)
    log = _log(request_id=ids, timestamp=range(9))
    build_examples(make_items(), log, tmp_path / "data")
    assert sorted(_requests(tmp_path / "data", "train")) == [(0, 1, 2), (3,), (4, 5)]
    assert read_rows(tmp_path / "data", "validation", "timestamp") == [((6, 7),)]
    (record,) = read_examples(tmp_path / "data", "test")
    assert not {"request_id", "request_key"} & set(record)


def test_a_request_is_in_the_split_of_its_first_second(tmp_path):
    log = make_log(200, users=1).drop(columns="split")
    rng = np.random.default_rng(5)
    log = log.assign(request_id=(np.arange(200) + rng.integers(0, 12, 200)) // 6)
    build_examples(make_items(), log, tmp_path / "data", num_shards=2)
    first = log.groupby("request_id").timestamp.transform("min")
    begins = {
        split: first[
            [row for rows in _requests(tmp_path / "data", split) for row in rows]
        ]
        for split in SPLITS
    }
    place = log.timestamp.rank(method="min", pct=True)
    validation, test = (log.timestamp[place > share].min() for share in (0.8, 0.9))
    assert begins["train"].max() < validation <= begins["validation"].min()
    assert begins["validation"].max() < test <= begins["test"].min()
    assert sum(map(len, begins.values())) == 200


def test_long_requests_are_cut(tmp_path):
    # Training's requests of 2 decide; those of the test split are longer.
    log = make_log(47, users=1, timestamp=[row // 2 for row in range(40)] + [99] * 7)
    log = log.assign(split=["train"] * 38 + ["validation"] * 2 + ["test"] * 7)
    summary = build_examples(make_items(), log, tmp_path / "data")
    assert summary["max_candidates"] == 2
    expected = [(40, 41), (42, 43), (44, 45), (46,)]
    assert _requests(tmp_path / "data", "test") == expected
    histories = {h for (h,) in read_rows(tmp_path / "data", "test", "history_item_id")}
    assert len(histories) == 1
    assert summary["requests"] == {"train": 19, "validation": 1, "test": 4}
    assert summary["splits"]["test"] == 7


def test_training_records_are_shuffled_as_wholes(tmp_path):
    log = make_log(404, users=1, timestamp=[row // 4 for row in range(404)])
    build_examples(make_items(), log, tmp_path / "data")
    found = _requests(tmp_path / "data", "train")
    assert found != sorted(found)
    assert sorted(found) == [tuple(range(row, row + 4)) for row in range(0, 400, 4)]


def test_columns_that_differ_are_the_candidates(tmp_path):
    texts = ["a", "b", "a", "c", "a", "a", "a", "a", "a"]
    log = _log(
        position=[0, 1, 2, 0, 0, 1, 0, 1, 0],
        text=texts,
        # Missing values are alike, and so are the zeros.
        same=[np.nan, np.nan, np.nan, 1, 0.0, -0.0, 2, 2, 3],
        # Only in the test of another shard.
        rare=pd.array([1, 1, 1, None, 1, 1, 1, None, 1], "Int64"),
        device=[f"d{user}" for user in _log().user_id],
    )
    summary = build_examples(make_items(), log, tmp_path / "data", num_shards=3)
    assert summary["candidate_columns"] == ["position", "text", "rare"]
    schema = Schema.load(tmp_path / "data")
    found = {feature.name for feature in schema.scalars if feature.candidate}
    assert found == {"item_id", "category", "position", "text", "rare"}
    names = ("row", "position", "text")
    rows = [
        row
        for split in SPLITS
        for row in read_impressions(tmp_path / "data", split, *names)
    ]
    assert sorted(rows) == [
        ((row,), (position,), (text.encode(),))
        for row, (position, text) in enumerate(zip(log.position, texts, strict=True))
    ]
    sizes = [
        list(map(len, row)) for row in read_rows(tmp_path / "data", "train", *names)
    ]
    assert sorted(sizes) == [[1] * 3, [2] * 3, [3] * 3]


def test_a_fitted_schema_says_whose_a_column_is(tmp_path):
    same = _log(hour=[1, 1, 1, 1, 2, 2, 2, 2, 1], tip=0.5)
    build_examples(make_items(), same, tmp_path / "first")
    schema = Schema.load(tmp_path / "first")
    other = _log(
        hour=[1, 2, 1, 1, 2, 2, 2, 1, 1],
        tip=[np.nan, 1, np.nan, 1, 0, 0, 1, 1, 1],
    )
    summary = build_examples(make_items(), other, tmp_path / "data", schema=schema)
    assert summary["candidate_columns"] == []
    found = sorted(_requests(tmp_path / "data", "train"))
    assert found == [(0, 2), (1,), (3,), (4, 5)]
    assert _requests(tmp_path / "data", "validation") == [(6,), (7,)]
    # Not yet fitted, it may still learn what differs.
    unfitted = DataFolder(tmp_path / "first").schema(with_vocabularies=False)
    summary = build_examples(make_items(), other, tmp_path / "third", schema=unfitted)
    assert summary["candidate_columns"] == ["hour", "tip"]


def test_a_candidate_column_of_a_schema_stays_one(tmp_path):
    log = _log(position=[0, 1, 2, 0, 0, 1, 0, 1, 0])
    build_examples(make_items(), log, tmp_path / "first")
    for fitted in (True, False):
        schema = DataFolder(tmp_path / "first").schema(with_vocabularies=fitted)
        output = tmp_path / f"{fitted}"
        summary = build_examples(
            make_items(), log.assign(position=4), output, schema=schema
        )
        assert summary["candidate_columns"] == ["position"]
        assert "position" in candidate_columns(output)
        assert read_rows(output, "validation", "position") == [((4, 4),)]


def test_a_history_of_a_column_that_differs(tmp_path):
    log = _log(position=[0, 1, 2, 9, 0, 1, 0, 1, 0])
    build_examples(make_items(), log, tmp_path / "first")
    path = tmp_path / "first" / "schema.json"
    content = json.loads(path.read_text())
    content["features"].append(
        {"name": "history_position", "kind": "sequence", "shares": "position"}
    )
    path.write_text(json.dumps(content))
    for fitted in (True, False):
        schema = Schema.load(tmp_path / "first", with_vocabularies=fitted)
        build_examples(make_items(), log, tmp_path / f"{fitted}", schema=schema)
        names = ("row", "position", "history_position")
        rows = read_rows(tmp_path / f"{fitted}", "train", *names)
        assert sorted(rows) == [
            ((0, 1, 2), (0, 1, 2), ()),
            ((3,), (9,), ()),
            ((4, 5), (0, 1), (1,)),
        ]
        assert read_rows(tmp_path / f"{fitted}", "test", *names) == [
            ((8,), (0,), (1, 1))
        ]


def test_ready_made_histories_that_differ_part_a_request(tmp_path):
    histories = [[1, 2], [2], [1, 2], [1], [], None, [4, 3], [5, 4, 3], [1]]
    log = _log(history_item_id=histories)
    build_examples(make_items(), log, tmp_path / "data", max_history=2)
    rows = read_rows(tmp_path / "data", "train", "row", "history_item_id")
    assert sorted(rows) == [
        ((0, 2), (1, 2)),
        ((1,), (2,)),
        ((3,), (1,)),
        ((4, 5), ()),
    ]
    # Alike as far as they are kept.
    rows = read_rows(tmp_path / "data", "validation", "row", "history_item_id")
    assert rows == [((6, 7), (4, 3))]


def test_weights(tmp_path):
    weights = [1, 0, 2.5, 1, 0.1, 3, 1, 2, 1e-3]
    log = _log(weight=weights)
    summary = build_examples(make_items(), log, tmp_path / "data")
    assert summary["weighted"] and DataFolder(tmp_path / "data").weighted
    assert "weight" not in Schema.load(tmp_path / "data")
    found = {}
    for split in SPLITS:
        found.update(read_impressions(tmp_path / "data", split, "row", "weight"))
    expected = {(r,): (float(np.float32(w)),) for r, w in enumerate(weights)}
    assert found == expected


@pytest.mark.parametrize("weight", [-1, np.nan, np.inf, 1e300, "much"])
def test_weights_that_are_none(tmp_path, weight):
    log = _log(weight=[1, 1, 1, weight, 1, 1, 1, 1, 1])
    log = log.astype({"weight": str}) if isinstance(weight, str) else log
    with pytest.raises(InputError, match="column weight, row 4: a weight is a finite"):
        build_examples(make_items(), log, tmp_path / "data")
    summary = build_examples(make_items(), log, tmp_path / "data", max_bad_rows=1)
    assert summary["skipped"]["bad_row"] == 1
    assert sorted(_requests(tmp_path / "data", "train")) == [(0, 1, 2), (4, 5)]


def test_negatives_leave_their_requests(tmp_path):
    log = make_log(2004, users=9, timestamp=[row // 4 for row in range(2004)])
    log.user_id = 1 + log.timestamp % 9
    log.label = (np.random.default_rng(2).random(2004) < 0.1).astype(int)
    summary = build_examples(
        make_items(), log, tmp_path / "data", negative_keep_rate=0.3, num_shards=2
    )
    found = _requests(tmp_path / "data", "train")
    kept = {row for rows in found for row in rows}
    train = log[:2000]
    clicked = set(train.index[train.label == 1])
    assert clicked < kept and len(kept) == 2000 - summary["negatives_left_out"]
    assert abs(len(kept - clicked) - 0.3 * (2000 - len(clicked))) < 80
    # By request, and one without candidates is no record.
    whole = collections.defaultdict(list)
    for row in sorted(kept):
        whole[row // 4].append(row)
    most = summary["max_candidates"]
    cut = [
        tuple(rows[i : i + most])
        for rows in whole.values()
        for i in range(0, len(rows), most)
    ]
    assert sorted(found) == sorted(cut) and len(whole) < 500
    assert all(len(rows) == 2 for rows in _requests(tmp_path / "data", "test"))
    build_examples(make_items(), log, tmp_path / "all")
    names = ("row", "history_item_id")
    everything = dict(read_impressions(tmp_path / "all", "train", *names))
    for row, history in read_impressions(tmp_path / "data", "train", *names):
        assert everything[row] == history


def test_a_left_out_negative_still_begins_its_request(tmp_path):
    # Its history ends before the row that the sample leaves out.
    log = make_log(4, users=1, label=[1, 0, 1, 1], timestamp=[3, 3, 4, 9])
    log = log.assign(request_id=[1, 2, 2, 3], split=["train"] * 3 + ["test"])
    for seed in range(20):
        output = tmp_path / f"{seed}"
        build_examples(
            make_items(),
            log,
            output,
            negative_keep_rate=0.2,
            splits=("train", "test"),
            seed=seed,
        )
        found = dict(read_rows(output, "train", "row", "history_item_id"))
        if (2,) in found:
            assert found == {(0,): (), (2,): ()}
            break
    else:
        raise AssertionError("no seed leaves the row out")


def test_history_rows_are_no_requests(tmp_path):
    log = _log(request_id=["a", "a", "b", "c", "d", "d", "e", "e", "f"])
    before = pd.DataFrame(
        {
            "user_id": [7, 8, 7],
            "item_id": [5, 5, 4],
            "timestamp": [1, 5, 5],
            "label": 1,
            "split": "history",
            # Missing, and one that others have: what only feeds histories is free.
            "request_id": [None, "a", "e"],
        }
    )
    log = pd.concat([before, log], ignore_index=True)
    summary = build_examples(make_items(), log, tmp_path / "data", num_shards=2)
    assert summary["history_rows"] == 3
    found = dict(read_rows(tmp_path / "data", "train", "row", "history_item_id"))
    assert found == {(3, 4): (5,), (5,): (5,), (6,): (), (7, 8): (5, 4, 2)}
