"""What histories hold of each click, against a join in pandas."""

import datetime

import numpy as np
import pandas as pd
import pytest

from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import Schema, read_schema
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.examples.data_frames import FrameFolders
from hccm_tf.preparation.validation.validate import validate
from tests.preparation.examples.logs import make_log, read_impressions
from tests.reference import histories

COUNT = 400
LONGEST = 6
ALL = ["history_item_id", "history_category", "history_year", "history_brand"]
# One that is a category and nearly an id, and those that have no embedding.
OTHERS = {
    "title": [f"item {number}" if number < 4 else "" for number in range(10)],
    "price": np.arange(10) + 0.5,
    "released": [datetime.date(2024, 5, 1)] * 10,
}


def _items():
    """Ten items; two have no brand and one no year."""
    return pd.DataFrame(
        {
            "year": pd.array([2020, None, 2021, 2020, 2021] * 2, "Int64"),
            "item_id": np.arange(10) + 1,
            "image": [f"{number // 2}.jpg" for number in range(10)],
            "brand": pd.Categorical(list("ppqqr") + [None, "p", None, "r", "q"]),
            "category": list("xyxxyzzxyz"),
            **OTHERS,
        }
    )


def _log(**columns):
    """A log of ten items, many clicks a second."""
    item = np.random.default_rng(3).integers(1, 11, COUNT)
    second = np.arange(COUNT) // 5
    return make_log(COUNT, item_id=item, timestamp=second, hour=second % 9, **columns)


def _joined(items, clicked, name):
    """Row → the values of its clicks as records have them, missing ones, too."""
    clicks = [(row, item) for row, items in enumerate(clicked) for item in items]
    clicks = pd.DataFrame(clicks, columns=["row", "item_id"])
    clicks = clicks.merge(items, "left", "item_id", validate="many_to_one")
    missing = "" if name in ("brand", "category") else -(2**63)
    values = clicks[name].astype(object).where(clicks[name].notna(), missing)
    values = values.map(lambda v: v.encode() if isinstance(v, str) else int(v))
    return values.groupby(clicks.row).agg(tuple).to_dict()


def _check(folder, items, clicked):
    """Compares all impressions' histories with lists of items, by rows of the log."""
    names = [name for name in ALL if name in Schema.load(folder)]
    expected = [
        _joined(items, clicked, name.removeprefix("history_")) for name in names
    ]
    seen = 0
    for split in DataFolder(folder).shard_lengths():
        for (row,), *found in read_impressions(folder, split, "row", *names):
            assert found == [of_row.get(row, ()) for of_row in expected], row
            seen += len(found[0])
    return seen


def test_histories_hold_the_items_categories(tmp_path, capsys):
    items, log = _items(), _log()
    summary = build_examples(
        items, log, tmp_path / "data", num_shards=3, max_history=LONGEST
    )
    schema = Schema.load(tmp_path / "data")
    assert [feature.name for feature in schema.sequences] == ALL
    assert [feature.dtype for feature in schema.sequences] == [
        *("int64", "string", "int64", "string")
    ]
    assert schema["title"].is_embedded and schema["price"].is_float
    clicked = [log.item_id[rows] for rows in histories(log, LONGEST)]
    assert _check(tmp_path / "data", items, clicked) > 4 * COUNT
    assert validate(tmp_path / "data")[1] == []
    becomes = {name: found["becomes"] for name, found in summary["columns"].items()}
    assert becomes["brand"] == "vocabulary of string, with history"
    assert becomes["title"] == "vocabulary of string"
    assert "with history" in capsys.readouterr().out


def test_ready_made_histories_hold_them_too(tmp_path):
    rng = np.random.default_rng(5)
    # Items that the catalogue lacks are left out.
    brought = [rng.integers(1, 12, rng.integers(0, 9)).tolist() for _ in range(COUNT)]
    log = _log(history_item_id=brought).drop(columns="timestamp")
    build_examples(_items(), log, tmp_path / "data", max_history=LONGEST)
    assert len(Schema.load(tmp_path / "data").sequences) == len(ALL)
    known = [[item for item in items if item < 11][-LONGEST:] for items in brought]
    assert _check(tmp_path / "data", _items(), known) > 2 * COUNT


def test_an_option_limits_them(tmp_path):
    for number, (told, expected) in enumerate(
        [
            ((), ALL[:2]),
            (("brand",), [*ALL[:2], "history_brand"]),
            (("brand", "item_id", "year"), ALL),
            (("title",), [*ALL[:2], "history_title"]),
        ]
    ):
        folder = tmp_path / str(number)
        build_examples(_items(), _log(), folder, history_columns=told)
        assert [f.name for f in Schema.load(folder).sequences] == expected


@pytest.mark.parametrize("name", ["shoe", "hour", "price", "released", "image"])
def test_what_no_history_can_hold(tmp_path, name):
    with pytest.raises(InputError) as error:
        build_examples(
            _items(), _log(), tmp_path / "data", history_columns=("brand", name)
        )
    assert str(error.value) == (
        "history_columns: columns of the items that are categories: item_id, category, "
        f"year, brand, title. Received: {name}"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("told", [(), ("brand",)])
def test_a_schema_says_it_itself(tmp_path, told):
    build_examples(_items(), _log(), tmp_path / "one", history_columns=("year",))
    schema = read_schema(tmp_path / "one" / "schema.json")
    with pytest.raises(InputError, match="^history_columns: the schema says"):
        build_examples(
            _items(), _log(), tmp_path / "two", schema=schema, history_columns=told
        )
    build_examples(_items(), _log(), tmp_path / "two", schema=schema)
    assert Schema.load(tmp_path / "two").sequences == schema.sequences


def test_frames_are_scored_with_the_histories_that_were_fitted():
    items, log = _items(), _log().drop(columns="split")
    folders = FrameFolders(items, log)
    schema = DataFolder(folders.training).schema()
    assert [feature.name for feature in schema.sequences] == ALL
    frame = log[log.timestamp > 60].reset_index(drop=True)
    clicked = [log.item_id[rows] for rows in histories(log, 100)]
    clicked = clicked[len(log) - len(frame) :]
    folder = folders.scoring(frame.drop(columns="label"), schema)
    # Clicks of the log come first, as rows of split `history`.
    shift = int((log.label == 1).sum())
    assert _check(folder, items, [()] * shift + clicked) > 0
