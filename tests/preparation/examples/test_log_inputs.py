"""What a log may look like, and what becomes of what it must not."""

import datetime
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema, read_schema
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from tests.preparation.examples.logs import make_items, make_log, read_impressions
from tests.reference import histories

KEY = ("user_id", "item_id", "timestamp", "label")
HISTORY = "history_item_id"


def _summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_folder_of_files(tmp_path, suffix):
    items, log = make_items(), make_log()
    (tmp_path / "log").mkdir()
    for number, rows in enumerate((log[:13], log[13:14], log[14:])):
        path = tmp_path / "log" / f"{number}.{suffix}"
        rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
    items.to_csv(tmp_path / "items.csv", index=False)
    build_examples(items, log, tmp_path / "frames")
    build_examples(tmp_path / "items.csv", tmp_path / "log", tmp_path / "files")
    for split in ("train", "validation", "test"):
        names = (*KEY, "history_item_id", "history_category", "image", "category")
        frames = read_impressions(tmp_path / "frames", split, *names)
        assert frames == read_impressions(tmp_path / "files", split, *names)


def test_ids_are_any_signed_integer_or_text(tmp_path):
    numbers = np.array([-(2**63) + 1, -1, 0, 2**53 + 1, 2**63 - 1])
    items, log = make_items(item_id=numbers), make_log()
    log = log.assign(item_id=numbers[log.item_id - 1], user_id=numbers[log.user_id])
    build_examples(items, log, tmp_path / "numbers")
    text = log.assign(item_id=log.item_id.astype(str), user_id=log.user_id.astype(str))
    text_items = items.assign(item_id=items.item_id.astype(str))
    build_examples(text_items, text, tmp_path / "text")
    expected = log.item_id.to_numpy()
    for row, history in zip(
        read_impressions(tmp_path / "numbers", "test", "history_item_id"),
        histories(log, 100)[-2:],
        strict=True,
    ):
        assert list(row[0]) == expected[history].tolist()
    found = read_impressions(tmp_path / "text", "train", "item_id", "history_item_id")
    as_text = [
        tuple(tuple(str(v).encode() for v in values) for values in row)
        for row in read_impressions(
            tmp_path / "numbers", "train", "item_id", "history_item_id"
        )
    ]
    assert found == as_text


def test_integer_ids_that_pandas_made_floats(tmp_path):
    log = make_log()
    build_examples(make_items(), log, tmp_path / "integers")
    build_examples(
        make_items(), log.assign(user_id=1.0 * log.user_id), tmp_path / "floats"
    )
    assert Schema.load(tmp_path / "floats")["user_id"].dtype == "int64"
    with pytest.raises(InputError, match="user_id"):
        build_examples(make_items(), log.assign(user_id=0.5), tmp_path / "data")


def test_ids_of_two_types(tmp_path):
    log = make_log().astype({"item_id": str})
    with pytest.raises(InputError, match="is int64 in items and item_id is.*string"):
        build_examples(make_items(), log, tmp_path / "data")


BAD = {
    "label": [2, np.nan, -1],
    "timestamp": [np.nan, np.inf, None],
    "user_id": [None],
    "split": ["dev", None],
}


def test_bad_rows_are_counted_up_to_a_limit(tmp_path):
    log = make_log()
    frames = [log[:10]]
    for name, values in BAD.items():
        for value in values:
            row = log[10:11].astype({name: object})
            frames.append(row.assign(**{name: [value]}))
    dirty = pd.concat([*frames, log[10:]], ignore_index=True)
    dirty = dirty.astype({"label": float, "timestamp": float, "user_id": "Int64"})
    count = len(dirty) - len(log)
    build_examples(make_items(), log, tmp_path / "clean")
    with pytest.raises(InputError, match=r"row 11: a label is 0 or 1\. Received: 2"):
        build_examples(make_items(), dirty, tmp_path / "data", max_bad_rows=count - 1)
    build_examples(make_items(), dirty, tmp_path / "data", max_bad_rows=count)
    summary = _summary(tmp_path / "data")
    assert summary["skipped"] == {"unknown_item": 0, "bad_row": count}
    assert summary["rows"] == len(dirty) and len(summary["bad_rows"]) == 4
    for split in ("train", "validation", "test"):
        expected = read_impressions(tmp_path / "clean", split, *KEY, "history_item_id")
        assert (
            read_impressions(tmp_path / "data", split, *KEY, "history_item_id")
            == expected
        )


def test_a_csv_row_with_too_few_fields(tmp_path):
    make_items().to_csv(tmp_path / "items.csv", index=False)
    path = tmp_path / "log.csv"
    make_log().to_csv(path, index=False)
    lines = path.read_text().splitlines()
    lines.insert(7, "1,2,3")
    path.write_text("\n".join(lines) + "\n")
    paths = tmp_path / "items.csv", path
    with pytest.raises(InputError, match="log.csv: line 8: 3 fields instead of 5"):
        build_examples(*paths, tmp_path / "data")
    summary = build_examples(*paths, tmp_path / "data", max_bad_rows=1)
    assert summary["rows"] == 41 and sum(summary["splits"].values()) == 40
    # Rows after it have the numbers that they have in the file.
    fields = lines[12].split(",")
    fields[lines[0].split(",").index("label")] = "2"
    lines[12] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")
    summary = build_examples(*paths, tmp_path / "more", max_bad_rows=2)
    assert "column label, row 12: " in summary["bad_rows"][1]


def test_ready_made_histories(tmp_path):
    log = make_log(4, split=["train", "train", "validation", "test"])
    log = log.drop(columns="timestamp")
    log["history_item_id"] = [[1, 2, 3], [], [5, 99, 4], None]
    summary = build_examples(make_items(), log, tmp_path / "data", max_history=2)
    assert summary["ready_made_histories"]
    rows = {
        split: read_impressions(
            tmp_path / "data", split, "history_item_id", "history_category"
        )
        for split in summary["splits"]
    }
    assert sorted(rows["train"]) == [((), ()), ((2, 3), (b"y", b"x"))]
    assert rows["validation"] == [((5, 4), (b"y", b""))]
    assert rows["test"] == [((), ())]
    with pytest.raises(InputError, match="no column timestamp"):
        build_examples(make_items(), log.drop(columns="split"), tmp_path / "other")


def test_the_time_split_keeps_a_second_together(tmp_path):
    rng = np.random.default_rng(1)
    log = make_log(200, timestamp=rng.integers(0, 30, 200)).drop(columns="split")
    summary = build_examples(make_items(), log, tmp_path / "data", num_shards=3)
    place = log.timestamp.rank(method="min", pct=True)
    expected = np.select([place <= 0.8, place <= 0.9], ["train", "validation"], "test")
    for split in ("train", "validation", "test"):
        found = sorted(read_impressions(tmp_path / "data", split, *KEY))
        rows = log[expected == split][list(KEY)].itertuples(index=False)
        assert found == sorted(tuple((v,) for v in row) for row in rows)
    assert summary["splits"] == pd.Series(expected).value_counts().to_dict()


def test_rare_values_are_out_of_the_vocabulary(tmp_path):
    log = make_log(400, users=100)
    build_examples(make_items(), log, tmp_path / "data", min_count=5, num_shards=3)
    schema = Schema.load(tmp_path / "data")
    counts = log.user_id[log.split == "train"].value_counts()
    kept = counts[counts >= 5]
    assert 10 < len(kept) < len(counts) - 10
    table = pd.read_parquet(tmp_path / "data" / "vocabularies" / "user_id.parquet")
    assert sorted(table.value) == sorted(kept.index)
    assert schema["user_id"].size == len(kept)
    assert schema["user_id"].frequency == pytest.approx(kept.mean())


def test_a_vocabulary_that_is_too_large_becomes_a_hash(tmp_path):
    log = make_log(400, users=100)
    build_examples(make_items(), log, tmp_path / "data", max_vocabulary=20)
    schema = Schema.load(tmp_path / "data")
    assert (schema["user_id"].kind, schema["user_id"].size) == ("hash", 20)
    assert schema["item_id"].kind == "vocabulary"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1, 2], "history_item_id: a list of item ids. Received: int64"),
        ([["1"], ["2"]], "history_item_id is.*string in impressions"),
    ],
)
def test_a_history_of_another_type(tmp_path, column, message):
    log = make_log(4).assign(history_item_id=column * 2)
    with pytest.raises(InputError, match=message):
        build_examples(make_items(), log, tmp_path / "data")


@pytest.mark.parametrize(
    "dtype",
    [pa.large_list(pa.int32()), pa.list_(pa.float64()), pa.list_(pa.int64(), 2)],
)
def test_lists_of_other_types(tmp_path, dtype):
    log = pa.Table.from_pandas(make_log(8))
    histories = pa.array([[3, 4], [1, 2]] * 4, dtype)
    pq.write_table(
        log.append_column("history_item_id", histories), tmp_path / "log.parquet"
    )
    make_items().to_parquet(tmp_path / "items.parquet")
    tables = tmp_path / "items.parquet", tmp_path / "log.parquet"
    build_examples(*tables, tmp_path / "data")
    rows = read_impressions(tmp_path / "data", "test", "history_item_id")
    assert rows == [((3, 4),), ((1, 2),)]


def test_columns_of_other_types(tmp_path):
    log = make_log()
    table = pa.table(
        {
            "user_id": pa.array(log.user_id.astype(str)).dictionary_encode(),
            "item_id": pa.array(log.item_id, pa.uint32()),
            "timestamp": pa.array(log.timestamp * 86_400_000, pa.timestamp("ms")),
            "label": pa.array(log.label == 1),
            "split": pa.array(log.split, pa.large_string()).dictionary_encode(),
            "new": pa.array([True, None] * 20),
            "price": pa.array([None, 1.5] * 20).cast(pa.decimal128(5, 1)),
            "nothing": pa.nulls(40),
        }
    )
    days = table.set_column(2, "timestamp", table["timestamp"].cast(pa.date32()))
    build_examples(
        make_items(), log.assign(timestamp=log.timestamp * 86_400), tmp_path / "0"
    )
    expected = read_impressions(
        tmp_path / "0", "test", "timestamp", "label", "history_item_id"
    )
    make_items().to_parquet(tmp_path / "items.parquet")
    for name, columns in (("1", table), ("2", days)):
        pq.write_table(columns, tmp_path / f"{name}.parquet")
        paths = tmp_path / "items.parquet", tmp_path / f"{name}.parquet"
        build_examples(*paths, tmp_path / name)
        found = read_impressions(
            tmp_path / name, "test", "timestamp", "label", "history_item_id"
        )
        assert found == expected
        schema = Schema.load(tmp_path / name)
        kinds = {
            f: (schema[f].kind, schema[f].dtype) for f in ("user_id", "new", "price")
        }
        assert kinds == {
            "user_id": ("vocabulary", "string"),
            "new": ("vocabulary", "int64"),
            "price": ("float", "float32"),
        }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id,timestamp,label\n", "no row is left of 0"),
        (
            "user_id,item_id,timestamp,label\n1,77,1,0\n",
            "no row is left of 1: 0 are bad, 1 of items",
        ),
        (
            "user_id,item_id,label,label\n1,1,1,0\n",
            "log.csv: columns named twice: label",
        ),
        ("user_id,item_id,timestamp,label\n1,1,1\n", "line 2: 3 fields instead of 4"),
    ],
)
def test_logs_without_a_good_row(tmp_path, text, message):
    make_items().to_csv(tmp_path / "items.csv", index=False)
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        build_examples(tmp_path / "items.csv", tmp_path / "log.csv", tmp_path / "data")


def test_text_with_line_breaks_and_a_column_that_is_empty_at_first(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("hccm_tf.preparation.tables.CSV_BLOCK_BYTES", 200)
    log = make_log(200, note="", place='shelf,\n"one"')
    log.loc[190:, "note"] = "late"
    log.to_csv(tmp_path / "log.csv", index=False)
    make_items().to_csv(tmp_path / "items.csv", index=False)
    build_examples(tmp_path / "items.csv", tmp_path / "log.csv", tmp_path / "data")
    rows = read_impressions(tmp_path / "data", "train", "place", "note")
    assert len(rows) == 196
    assert {place for place, _ in rows} == {(b'shelf,\n"one"',)}
    assert sum(note == (b"late",) for _, note in rows) == 6


@pytest.mark.parametrize(
    "name",
    [
        *("user_key", "item_row", "key", "row", "request_key", "timestamp_fraction"),
        *("a/b", "", "a\nb", "history_hour", "History_Image", "ITEM_ID", "Image"),
        "n" * 300,
    ],
)
@pytest.mark.parametrize("table", ["items", "log"])
def test_names_that_no_column_may_have(tmp_path, name, table, monkeypatch):
    """It is seen in the header, before any row is read."""
    monkeypatch.delattr("hccm_tf.preparation.examples.build.read_columns")
    items, log = make_items(), make_log()
    if table == "items":
        items[name] = 1
    else:
        log[name] = 1
    with pytest.raises(InputError, match="; rename (the column|one)$") as error:
        build_examples(items, log, tmp_path / "data")
    assert (repr(name) in str(error.value)) or (name in str(error.value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["weight", "split", "timestamp", "label"])
def test_an_item_has_no_column_of_impressions(tmp_path, name):
    """The weight of an item would have weighed its impressions."""
    message = f"^items: column {name}: the name is used here; rename the column$"
    with pytest.raises(InputError, match=message):
        build_examples(make_items(**{name: 1}), make_log(), tmp_path / "data")


def test_a_schema_leaves_out_what_no_feature_may_be_called(tmp_path):
    schema = Schema((Feature("item_id", "vocabulary"),))
    log = make_log(**{"a/b": 1, "ITEM_ID": 2, "n" * 300: 3})
    build_examples(make_items(), log, tmp_path / "data", schema=schema)
    assert len(read_impressions(tmp_path / "data", "test", "item_id")) == 2


def test_one_bad_text_among_good_rows(tmp_path):
    log = make_log().astype({"label": str, "timestamp": str})
    log.loc[20, "label"], log.loc[30, "timestamp"] = "yes", "noon"
    with pytest.raises(InputError, match=r"row 21: a label is 0 or 1.*'yes'"):
        build_examples(make_items(), log, tmp_path / "data")
    summary = build_examples(make_items(), log, tmp_path / "data", max_bad_rows=2)
    assert summary["splits"]["train"] == 34


ZONES = {"Z": 0, "": 0, "+02:00": 2, "-0530": -5.5}


@pytest.mark.parametrize("zones", [[""], ["Z"], list(ZONES)], ids=str)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_dates_as_text_are_read_one_by_one(tmp_path, suffix, zones, monkeypatch):
    """The first block of a CSV file says nothing of what comes below it."""
    monkeypatch.setattr("hccm_tf.preparation.tables.CSV_BLOCK_BYTES", 300)
    log = make_log(200, timestamp=1_709_558_866 + np.arange(200) // 2)
    build_examples(make_items(), log, tmp_path / "seconds")
    zone = [zones[row // 50 % len(zones)] for row in range(200)]
    text = [
        datetime.datetime.fromtimestamp(
            second, datetime.timezone(datetime.timedelta(hours=ZONES[name]))
        ).strftime(f"%Y-%m-%dT%H:%M:%S{name}")
        for second, name in zip(log.timestamp, zone, strict=True)
    ]
    log = log.assign(timestamp=text)
    bad = pd.concat([log[:150], log[:1].assign(timestamp="yesterday"), log[150:]])
    path = tmp_path / f"log.{suffix}"
    bad.to_csv(path, index=False) if suffix == "csv" else bad.to_parquet(path)
    with pytest.raises(InputError, match="row 151: not a time: .*'yesterday'; 1 bad"):
        build_examples(make_items(), path, tmp_path / "text")
    summary = build_examples(make_items(), path, tmp_path / "text", max_bad_rows=1)
    assert summary["skipped"]["bad_row"] == 1
    for split in ("train", "validation", "test"):
        expected = read_impressions(tmp_path / "seconds", split, *KEY, HISTORY)
        assert read_impressions(tmp_path / "text", split, *KEY, HISTORY) == expected


def test_files_of_a_folder_have_dates_of_their_own(tmp_path):
    """Without a zone, with one and a word, and Parquet's in a zone."""
    log = make_log(120, timestamp=1_709_558_866 + np.arange(120) // 2)
    build_examples(make_items(), log, tmp_path / "seconds")
    times = pd.to_datetime(log.timestamp, unit="s", utc=True)
    folder = tmp_path / "log"
    folder.mkdir()
    plain = times.dt.strftime("%Y-%m-%d %H:%M:%S")
    log[:40].assign(timestamp=plain).to_csv(folder / "a.csv", index=False)
    rows = log[40:80].assign(timestamp=times.dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    rows = pd.concat([rows, rows[:1].assign(timestamp="yesterday")])
    rows.to_csv(folder / "b.csv", index=False)
    berlin = times.dt.tz_convert("Europe/Berlin")
    log[80:].assign(timestamp=berlin).to_parquet(folder / "c.parquet")
    with pytest.raises(InputError, match="b.csv: .*row 41: not a time: .*'yesterday'"):
        build_examples(make_items(), folder, tmp_path / "text")
    build_examples(make_items(), folder, tmp_path / "text", max_bad_rows=1)
    for split in ("train", "validation", "test"):
        expected = read_impressions(tmp_path / "seconds", split, *KEY, HISTORY)
        assert read_impressions(tmp_path / "text", split, *KEY, HISTORY) == expected


@pytest.mark.parametrize("timestamp", [1e300, -1e19, 2.0**62])
def test_a_time_that_no_integer_holds(tmp_path, timestamp):
    log = make_log().astype({"timestamp": float})
    log.loc[3, "timestamp"] = timestamp
    with pytest.raises(InputError, match="timestamp, row 4: not a time: seconds"):
        build_examples(make_items(), log, tmp_path / "data")


def test_ids_that_are_missing_or_decimal(tmp_path):
    log = make_log().astype({"user_id": float})
    log.loc[3, "user_id"] = np.nan
    summary = build_examples(make_items(), log, tmp_path / "data", max_bad_rows=1)
    assert summary["skipped"]["bad_row"] == 1
    table = pa.Table.from_pandas(make_log())
    decimals = table["item_id"].cast(pa.decimal128(20, 0))
    pq.write_table(table.set_column(1, "item_id", decimals), tmp_path / "log.parquet")
    build_examples(make_items(), tmp_path / "log.parquet", tmp_path / "decimals")
    assert Schema.load(tmp_path / "decimals")["item_id"].dtype == "int64"


def test_max_history_changes_that_of_a_schema(tmp_path):
    build_examples(make_items(), make_log(), tmp_path / "one", max_history=5)
    schema = read_schema(tmp_path / "one" / "schema.json")
    for name, options, expected in (("same", {}, 5), ("other", {"max_history": 2}, 2)):
        build_examples(
            make_items(), make_log(), tmp_path / name, schema=schema, **options
        )
        assert Schema.load(tmp_path / name).max_history == expected
        rows = read_impressions(tmp_path / name, "train", "history_item_id")
        assert max(len(history) for (history,) in rows) == expected


@pytest.mark.parametrize("name", ["log.csv.gz", "log.pq", "day=1", "LOG.CSV"])
def test_nothing_in_a_folder_is_passed_over(tmp_path, name):
    folder = tmp_path / "log"
    (folder / "day=1").mkdir(parents=True) if name == "day=1" else folder.mkdir()
    make_log().to_parquet(folder / "0.parquet")
    (folder / "_SUCCESS").touch()
    if name != "day=1":
        (folder / name).touch()
    says = f"{name}: neither a .csv nor a .parquet"
    says += ".*; unpack it, convert it"
    with pytest.raises(InputError, match=says):
        build_examples(make_items(), folder, tmp_path / "data")
    (folder / name).rmdir() if name == "day=1" else (folder / name).unlink()
    build_examples(make_items(), folder, tmp_path / "data")


def test_ready_made_histories_hold_no_column_of_the_log(tmp_path):
    schema = Schema(
        (
            Feature("hour", "vocabulary"),
            Feature("history_hour", "sequence", shares="hour"),
        )
    )
    log = make_log(4, hour=1).assign(history_item_id=[[1]] * 4)
    with pytest.raises(InputError, match="history_hour: ready-made"):
        build_examples(make_items(), log, tmp_path / "data", schema=schema)
