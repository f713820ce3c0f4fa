import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from hccm_tf.data.feature import Feature
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import Schema, read_schema
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from tests.preparation.examples.logs import (
    make_items,
    make_log,
    read_examples,
    read_impressions,
    read_inputs,
)
from tests.reference import histories


def test_every_training_impression_is_one_of_the_log(shop):
    log = shop.log[shop.log.split == "train"]
    expected = sorted(
        (row.user_id, row.item_id, row.timestamp, row.label, *row.history)
        for row in log.itertuples()
    )
    # Clicks by their items: a click's row is not in the file.
    items = shop.log.item_id.to_numpy()
    expected = sorted((*row[:4], *items[list(row[4:])]) for row in expected)
    names = ("user_id", "item_id", "timestamp", "label", "history_item_id")
    found = [
        tuple(value for values in row for value in values)
        for row in read_impressions(shop.data, "train", *names)
    ]
    assert sorted(found) == expected
    assert found != expected


def test_tensorflow_datasets_reads_the_folder(shop):
    builder = tfds.builder_from_directory(shop.data)
    records = DataFolder(shop.data).num_requests("test")
    assert builder.info.splits["test"].num_examples == records
    examples = read_examples(shop.data, "test")
    dataset = builder.as_dataset(split="test", shuffle_files=False)
    count = 0
    for found, example in zip(dataset.as_numpy_iterator(), examples, strict=True):
        assert set(found) == set(example)
        for name, value in found.items():
            lists = example[name]
            kind = lists.WhichOneof("kind")
            expected = list(getattr(lists, kind).value) if kind else []
            assert np.ravel(value).tolist() == expected
        count += len(found["label"])
    assert count == 300


def test_splits_by_time_where_the_column_is_missing(tmp_path):
    log = make_log(100).drop(columns="split").sample(frac=1, random_state=0)
    counts = build_examples(make_items(), log, tmp_path / "data")["splits"]
    times = {
        split: read_impressions(tmp_path / "data", split, "timestamp")
        for split in counts
    }
    assert sum(counts.values()) == 100
    assert max(times["train"]) < min(times["validation"])
    assert max(times["validation"]) < min(times["test"])
    assert counts == {"train": 80, "validation": 10, "test": 10}


def test_impressions_of_unknown_items_are_counted_and_left_out(tmp_path, capsys):
    log = make_log()
    log.loc[[0, 5, 7], "item_id"] = [99, -1, 100]
    log.loc[[0, 5, 7], "label"] = 1
    counts = build_examples(make_items(), log, tmp_path / "data")["splits"]
    assert counts["train"] == 33
    output = capsys.readouterr()
    assert "3 impressions" in output.out
    assert "warning: 3 of 40 impressions (8%)" in output.err
    assert "such as 99, -1, 100; they are left out" in output.err
    for example in read_examples(tmp_path / "data", "train"):
        assert not {99, -1, 100} & set(example["history_item_id"].int64_list.value)


def test_history_rows_feed_histories_and_are_not_written(tmp_path):
    log = make_log(label=1)
    log.loc[:9, "split"] = "history"
    counts = build_examples(make_items(), log, tmp_path / "data")["splits"]
    assert counts == {"train": 26, "validation": 2, "test": 2}
    expected = [len(history) for history in histories(log, 100)[-2:]]
    found = [
        len(history)
        for (history,) in read_impressions(tmp_path / "data", "test", "history_item_id")
    ]
    assert found == expected and min(found) > 3


def test_image_is_a_feature_only_where_items_share_one(tmp_path):
    build_examples(make_items(), make_log(), tmp_path / "distinct")
    assert "image" not in Schema.load(tmp_path / "distinct")
    build_examples(
        make_items(image=["a", "b", "a", "", ""]), make_log(), tmp_path / "shared"
    )
    schema = Schema.load(tmp_path / "shared")
    assert schema["image"].kind == "vocabulary"


def test_vocabularies_are_those_of_the_training_split(tmp_path):
    log = make_log(brand="old")
    log.loc[38:, "brand"] = "new"
    build_examples(make_items(), log, tmp_path / "data")
    schema = Schema.load(tmp_path / "data")
    assert schema["brand"].size == 1
    assert schema.index("brand", tf.constant(["old", "new"])).numpy().tolist() == [2, 1]
    assert schema["brand"].frequency == (log.split == "train").sum()
    table = pd.read_parquet(tmp_path / "data" / "vocabularies" / "brand.parquet")
    assert table.value.tolist() == ["old"]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        build_examples(make_items(), make_log(400), tmp_path / name, num_shards=3)
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        again = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == again.read_bytes()


def test_missing_values(tmp_path):
    items = make_items(
        depth=pd.array([1.5, None, 3.0, 5.0, None], "Float64"),
        brand=["p", None, "q", "p", "q"],
        year=pd.array([2020, None, 2021, 2020, 2021], "Int64"),
    )
    log = make_log(item_id=np.arange(40) % 5 + 1)
    build_examples(items, log, tmp_path / "data")
    schema = Schema.load(tmp_path / "data")
    train = items.depth[log.item_id[:36] - 1].dropna().astype(float)
    assert schema["depth"].mean == pytest.approx(train.mean())
    assert schema["depth"].std == pytest.approx(train.std(ddof=0))
    year = items.year[log.item_id[:36] - 1].dropna()
    assert schema["year"].frequency == pytest.approx(year.value_counts().mean())
    inputs = read_inputs(tmp_path / "data", "test")
    # The last two rows show items 4 (no image, no category) and 5.
    assert inputs["category"].tolist()[0] == 1
    assert inputs["depth"][1] == 0
    log.loc[38, "item_id"] = 2
    build_examples(items, log, tmp_path / "again")
    inputs = read_inputs(tmp_path / "again", "test")
    assert [int(inputs[name][0]) for name in ("depth", "brand", "year")] == [0, 1, 1]


def test_a_missing_quantity_is_no_number(tmp_path):
    count = 1200
    log = make_log(count, views=pd.array(np.arange(count) + 5, "Int64"))
    log.loc[[3, count - 1], "views"] = pd.NA
    build_examples(make_items(), log, tmp_path / "data", numeric=("views",))
    schema = Schema.load(tmp_path / "data")
    assert schema["views"].kind == "float"
    train = log.views[log.split == "train"].dropna().astype(float)
    assert schema["views"].mean == pytest.approx(train.mean())
    inputs = read_inputs(tmp_path / "data", "test")
    assert inputs["views"][1] == 0


def _edited(tmp_path, edit, **columns):
    items = make_items(brand=list("ppqqr"))
    build_examples(items, make_log(hour=3), tmp_path / "first")
    path = tmp_path / "first" / "schema.json"
    content = json.loads(path.read_text())
    content["features"] = edit(content["features"])
    path.write_text(json.dumps(content))
    build_examples(
        items,
        make_log(**{"hour": 3, **columns}),
        tmp_path / "second",
        schema=read_schema(path),
    )
    schema = Schema.load(tmp_path / "second")
    return schema, read_inputs(tmp_path / "second", "test")


def _replaced(features, name, **changes):
    return [
        {**feature, **changes} if feature["name"] == name else feature
        for feature in features
    ]


def test_edited_to_a_hash(tmp_path):
    schema, inputs = _edited(
        tmp_path,
        lambda features: _replaced(features, "item_id", kind="hash", size=3),
    )
    assert schema.num_rows("item_id") == 5
    assert set(np.unique(inputs["history_item_id"])) <= {0, 2, 3, 4}
    assert (inputs["item_id"] >= 2).all()


def test_edited_to_a_float(tmp_path):
    schema, inputs = _edited(
        tmp_path,
        lambda features: _replaced(features, "hour", kind="float"),
        hour=np.arange(40),
    )
    assert schema["hour"].mean == pytest.approx(np.arange(36).mean())
    expected = (np.array([38, 39]) - 17.5) / np.arange(36).std()
    np.testing.assert_allclose(inputs["hour"], expected, rtol=1e-5)


def test_edited_to_an_integer(tmp_path):
    schema, _ = _edited(
        tmp_path,
        lambda features: _replaced(features, "hour", kind="integer", size=24),
        hour=[1, 2, 2, 99] * 10,
    )
    # 36 rows of the training split, a quarter of them outside the range.
    assert schema["hour"].frequency == 27 / 2


def test_edited_without_a_feature(tmp_path):
    schema, inputs = _edited(
        tmp_path,
        lambda features: [feature for feature in features if feature["name"] != "hour"],
    )
    assert "hour" not in schema and "hour" not in inputs


def test_edited_to_another_width(tmp_path):
    schema, inputs = _edited(
        tmp_path, lambda features: _replaced(features, "brand", embedding_dim=3)
    )
    assert schema["brand"].embedding_dim == 3
    brand = dict(zip([1, 2, 3, 4, 5], "ppqqr", strict=True))
    log = make_log()
    for place, history in enumerate(histories(log, 100)[-2:]):
        brands = [brand[item] for item in log.item_id[history]]
        expected = schema.index("brand", tf.constant(brands)).numpy().tolist()
        row = inputs["history_brand"][place]
        assert row[: len(expected)].tolist() == expected
        assert (row[len(expected) :] == 0).all()


@pytest.mark.parametrize(
    "feature",
    [
        Feature("nothing", "vocabulary"),
        Feature("category", "float", "float32"),
        Feature("category", "integer", size=5),
        Feature("category", "vocabulary", "int64"),
    ],
    ids=str,
)
def test_a_schema_that_does_not_fit_the_columns(tmp_path, feature):
    with pytest.raises(InputError, match=feature.name):
        build_examples(
            make_items(), make_log(), tmp_path / "data", schema=Schema((feature,))
        )
    assert list(tmp_path.iterdir()) == []


def test_a_history_of_an_impression_column(tmp_path):
    schema = Schema(
        (
            Feature("hour", "vocabulary"),
            Feature("history_hour", "sequence", shares="hour"),
        )
    )
    log = make_log(hour=np.arange(40) % 24)
    build_examples(make_items(), log, tmp_path / "data", schema=schema)
    for row, (found,) in zip(
        log.tail(2).itertuples(),
        read_impressions(tmp_path / "data", "test", "history_hour"),
        strict=True,
    ):
        earlier = (log.user_id == row.user_id) & (log.timestamp < row.timestamp)
        expected = log.hour[earlier & (log.label == 1)].tolist()
        assert expected
        assert list(found) == expected


@pytest.mark.parametrize(
    ("items", "log", "message"),
    [
        ({}, {"label": [2] + [0] * 39}, "impressions.*label, row 1.*0 or 1"),
        ({}, {"label": [0, 0, None] + [0] * 37}, "impressions.*label, row 3"),
        ({}, {"label": ["yes"] + ["0"] * 39}, "impressions.*label, row 1"),
        ({}, {"split": "train"}, "split validation is empty"),
        ({}, {"split": ["dev"] + ["train"] * 39}, "split, row 1"),
        ({}, {"user_id": [1, None] * 20}, "user_id, row 2: empty"),
        ({}, {"timestamp": ["noon"] * 40}, "timestamp, row 1"),
        (
            {"item_id": [1, 27, 3, 27, 5]},
            {},
            "items: column item_id, row 4: a repeated id, 27: keep one row for each",
        ),
        ({"item_id": [1, 2, None, 4, 5]}, {}, "items.*item_id, row 3: empty"),
        ({"hour": 1}, {"hour": 2}, "both have a column hour: drop it from impressions"),
    ],
)
def test_input_errors(tmp_path, items, log, message):
    with pytest.raises(InputError, match=message):
        build_examples(make_items(**items), make_log(**log), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_output_folder_exists(shop):
    before = sorted(shop.data.iterdir())
    with pytest.raises(InputError, match="exists already"):
        build_examples(make_items(), make_log(), shop.data)
    assert sorted(shop.data.iterdir()) == before


def test_a_repeated_hour_of_local_time_leaks_nothing(tmp_path):
    # From 02:59 summer time to 02:00 winter time: later, although it reads earlier.
    moments = pd.date_range("2023-10-29 00:30", periods=40, freq="7min", tz="UTC")
    log = make_log().assign(timestamp=moments)
    local = log.assign(timestamp=moments.tz_convert("Europe/Berlin"))
    seconds = log.assign(timestamp=moments.as_unit("s").astype("int64"))
    for name, frame in (("local", local), ("seconds", seconds)):
        build_examples(make_items(), frame, tmp_path / name)
    for split in ("train", "test"):
        local, seconds = (
            [dict(features) for features in read_examples(tmp_path / name, split)]
            for name in ("local", "seconds")
        )
        assert local == seconds


def test_an_unknown_option(tmp_path):
    with pytest.raises(TypeError, match="num_parts"):
        build_examples(make_items(), make_log(), tmp_path / "data", num_parts=3)
    assert list(tmp_path.iterdir()) == []
