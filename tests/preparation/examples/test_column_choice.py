"""What becomes of a column: the rule, what is told, and what is read of the table."""

import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema, read_schema
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.examples.column_choice import choose_columns
from hccm_tf.preparation.examples.job import BuildOptions
from hccm_tf.preparation.tables import read_types
from tests.preparation.examples.logs import make_items, make_log, read_impressions

ROWS = 400
INTEGERS = list(range(ROWS))
DAY = datetime.date(2024, 5, 1)
# Name → values, what becomes of them in CSV and in Parquet. What is odd comes last.
COLUMNS = {
    "word": (["a"] * ROWS, "string", "string"),
    "many": (INTEGERS, "int64", "int64"),
    "flag": ([True, False] * (ROWS // 2), "int64", "int64"),
    "gaps": ([*INTEGERS[:-1], np.nan], "int64", "int64"),
    "whole": ([float(n) for n in INTEGERS], "float32", "float32"),
    "fraction": ([*INTEGERS[:-2], np.nan, 0.5], "float32", "float32"),
    "huge": ([np.nan, *[10.0 ** (n % 30) for n in INTEGERS[1:]]], "float32", "float32"),
    "zip": ([*map(str, INTEGERS[:-1]), "01067"], "string", "string"),
    "zip_with_gaps": ([*map(str, INTEGERS[:-2]), "", "01067"], "string", "string"),
    "hash": ([str(2**64 - n) for n in INTEGERS], "string", "string"),
    "released": ([DAY] * ROWS, None, None),
    "at": ([datetime.datetime(2024, 5, 1, 7, 30)] * ROWS, None, None),
}
LISTS = {
    "tags": pa.array([["a"]] * ROWS),
    "place": pa.array([{"x": 1}] * ROWS),
    "bytes": pa.array([b"\xff"] * ROWS),
    "cents": pa.array([1] * ROWS, pa.decimal128(9, 2)),
    "number": pa.array([1] * ROWS, pa.decimal128(9, 0)),
}


def _chosen(tmp_path, table, suffix="parquet", options=None, schema=None):
    """Name → dtype, or `None`, that becomes of a log's columns."""
    for name, values in (("label", 0), ("item_id", 1), ("user_id", 2)):
        table = table.add_column(0, name, [[values] * ROWS])
    log, items = tmp_path / f"log.{suffix}", tmp_path / "items.parquet"
    if suffix == "csv":
        table.to_pandas().to_csv(log, index=False)
    else:
        pq.write_table(table, log)
    make_items().to_parquet(items)
    paths = (items, read_types(items, ())), (log, read_types(log, ()))
    _, choices = choose_columns(*paths, schema, options or BuildOptions())
    assert choices.pop("user_id").dtype == choices.pop("item_id").dtype == pa.int64()
    assert all(choice.why for choice in choices.values())
    return {name: c.dtype and str(c.dtype) for name, c in choices.items()} | {
        name: c.hint for name, c in choices.items() if c.hint
    }


def _renamed(found):
    names = {"float": "float32"}
    return {name: names.get(dtype, dtype) for name, dtype in found.items()}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_rule_looks_at_all_rows(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("hccm_tf.preparation.tables.CSV_BLOCK_BYTES", 4_000)
    monkeypatch.setattr("hccm_tf.preparation.tables.BATCH_ROWS", 50)
    frame = pd.DataFrame({name: values for name, (values, *_) in COLUMNS.items()})
    table = pa.Table.from_pandas(frame, preserve_index=False)
    if suffix == "parquet":
        for name, values in LISTS.items():
            table = table.append_column(name, values)
    expected = {n: becomes[suffix == "parquet"] for n, (_, *becomes) in COLUMNS.items()}
    if suffix == "parquet":
        expected |= {"tags": None, "place": None, "bytes": None}
        expected |= {"cents": "float32", "number": "int64"}
    assert _renamed(_chosen(tmp_path, table, suffix)) == expected


def test_what_is_told_counts(tmp_path):
    table = pa.table(
        {
            "views": INTEGERS,
            "text": [f" {n}.5" for n in INTEGERS],
            "size": [n + 0.5 for n in INTEGERS],
            "whole": [float(n) for n in INTEGERS],
            "released": pa.array([DAY] * ROWS),
            "tags": LISTS["tags"],
        }
    )
    options = BuildOptions(
        numeric=("views", "text"), categorical=("size", "whole", "released")
    )
    assert _renamed(_chosen(tmp_path, table, options=options)) == {
        "views": "float32",
        "text": "float32",
        "size": "string",
        "whole": "int64",
        "released": "string",
        "tags": None,
    }
    schema = Schema((Feature("views", "hash", "string", size=9),))
    found = _chosen(tmp_path, table, schema=schema)
    assert found == {**dict.fromkeys(table.column_names), "views": "string"}
    for numeric, categorical, given, message in (
        (["vews"], [], None, "numeric: no column vews. Received columns: .*views"),
        (["user_id"], [], None, "numeric: user_id is an id"),
        (["views"], ["views"], None, "numeric: views is categorical, too"),
        ([], ["tags"], None, "categorical: column tags is list"),
        (["views"], [], schema, "numeric: the schema says"),
    ):
        options = BuildOptions(numeric=tuple(numeric), categorical=tuple(categorical))
        with pytest.raises(InputError, match=message):
            _chosen(tmp_path, table, options=options, schema=given)


def test_text_that_looks_like_numbers_is_named(tmp_path):
    texts = {
        "comma": "12,99",
        "euro": "€12.50",
        "thousands": "1 299,00 EUR",
        "share": "15%",
        "point": "12.99",
        "code": "A12",
        "address": "10.0.0.1",
        "day": "01.02.2024",
        "digits": "0123",
        "word": "red",
    }
    table = pa.table({name: [text, ""] * (ROWS // 2) for name, text in texts.items()})
    named = [n for n, hint in _chosen(tmp_path, table).items() if hint != "string"]
    assert named == ["comma", "euro", "thousands", "share", "point"]


def test_told_columns_are_read_so_and_the_table_says_it(tmp_path, capsys):
    log = make_log(
        views=np.arange(40),
        size=[38.5, 39] * 20,
        paid=["7.25", None] * 20,
        price=["12,99", "8,50"] * 20,
        released=[DAY] * 40,
        cents=np.arange(40) * 7,
    )
    summary = build_examples(
        make_items(),
        log,
        tmp_path / "data",
        numeric=("views", "paid"),
        categorical=("size",),
    )
    schema = Schema.load(tmp_path / "data")
    assert schema["views"].mean == pytest.approx(np.arange(36).mean())
    names = ("views", "size", "paid")
    found = read_impressions(tmp_path / "data", "test", *names)
    assert found[0] == ((38.0,), (b"38.5",), (7.25,))
    assert found[1][:2] == ((39.0,), (b"39",)) and np.isnan(found[1][2])
    output = capsys.readouterr()
    assert "warning: column price: text that looks like numbers" in output.err
    lines = {line.split()[0]: line.split() for line in output.out.splitlines()}
    assert lines["size"] == [
        *("size", "vocabulary", "of", "string", "2", "0.0%", "38.5", "as", "told")
    ]
    assert lines["paid"][:6] == ["paid", "float", "of", "float32", "7.25", "±"]
    assert lines["paid"][7:] == ["50.0%", "7.25", "as", "told"]
    assert lines["released"][:4] == ["released", "left", "out", "date32[day];"]
    assert lines["cents"][5:] == (
        "0.0% 0 integers, most of them once: if amounts, --numeric=cents".split()
    )
    assert summary["columns"]["price"] == {
        "becomes": "vocabulary of string",
        "because": "text",
        "values": 2,
        "missing": 0.0,
        "example": "12,99",
    }


def test_no_column_that_is_not_needed_is_an_error(tmp_path):
    log, items = make_log(hour=np.arange(40) % 3), make_items(tags=[["a"]] * 5)
    build_examples(items, log, tmp_path / "one")
    schema = read_schema(tmp_path / "one" / "schema.json")
    (tmp_path / "log.csv").write_text(
        log.assign(note=["1"] * 39 + ["word"], price=["9" * 400] * 40).to_csv(
            index=False
        )
    )
    schema = Schema((*schema.features, Feature("note", "hash", "string", size=5)))
    build_examples(items, tmp_path / "log.csv", tmp_path / "two", schema=schema)
    assert "price" not in Schema.load(tmp_path / "two")


TEXT_IDS = "0108775015", "007", "7"


@pytest.mark.parametrize("items_as", ["csv", "parquet"])
@pytest.mark.parametrize("log_as", ["csv", "parquet"])
def test_leading_zeros(tmp_path, items_as, log_as):
    items = pd.DataFrame(
        {"item_id": TEXT_IDS, "image": ["a", "b", "c"], "category": ["01", "1", "01"]}
    )
    # The log does not show the items whose ids begin with 0.
    log = pd.DataFrame(
        {
            "user_id": ["01", "1", "01", "1", "01", "1"],
            "item_id": "7",
            "timestamp": range(6),
            "label": 1,
            "split": ["train", "train", "validation", "validation", "test", "test"],
        }
    )
    paths = tmp_path / f"items.{items_as}", tmp_path / f"log.{log_as}"
    for frame, path in zip((items, log), paths, strict=True):
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(
            path
        )
    build_examples(*paths, tmp_path / "data")
    schema = Schema.load(tmp_path / "data")
    dtypes = {feature.name: feature.dtype for feature in schema.features}
    assert set(dtypes.values()) == {"string"} and len(dtypes) == 5
    rows = read_impressions(
        tmp_path / "data", "test", "user_id", "item_id", "history_item_id", "category"
    )
    assert rows[0] == ((b"01",), (b"7",), (b"7", b"7"), (b"01",))
    catalogue = pd.read_parquet(tmp_path / "data" / "catalogue.parquet")
    assert catalogue.category.tolist() == ["01", "1", "01"]
    assert sorted(catalogue.item_id) == sorted(TEXT_IDS)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_schemas_word_wins(tmp_path, suffix):
    schema = Schema(
        (
            Feature("user_id", "vocabulary", "string"),
            Feature("item_id", "vocabulary", "string"),
            Feature("hour", "vocabulary", "string"),
            Feature("zip", "vocabulary", "int64"),
        )
    )
    log = make_log(hour=[7.0, np.nan] * 20, zip=["01067", "8"] * 20)
    for name, frame in (("items", make_items()), ("log", log)):
        path = tmp_path / f"{name}.{suffix}"
        frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    paths = tmp_path / f"items.{suffix}", tmp_path / f"log.{suffix}"
    build_examples(*paths, tmp_path / "data", schema=schema)
    names = ("user_id", "item_id", "hour", "zip")
    found = read_impressions(tmp_path / "data", "test", *names)
    user, item = log.user_id[38], log.item_id[38]
    hour = b"7.0" if suffix == "csv" else b"7"
    expected = ((f"{user}".encode(),), (f"{item}".encode(),), (hour,), (1067,))
    assert found[0] == expected


@pytest.mark.parametrize("largest, dtype", [(2**63 - 1, "int64"), (2**63, "string")])
def test_unsigned_integers_of_64_bits(tmp_path, largest, dtype):
    """As in CSV: those that no signed integer holds are text."""
    values = pa.array([*INTEGERS[:-1], largest], pa.uint64())
    table = pa.table({"campaign": values, "position": values})
    told = BuildOptions(categorical=("position",))
    found = _chosen(tmp_path, table, options=told)
    assert found == {"campaign": dtype, "position": dtype}
    log = make_log(user_id=[*range(38), largest, largest]).astype({"user_id": "uint64"})
    build_examples(make_items(), log, tmp_path / "data")
    # What is written is what was read.
    users = read_impressions(tmp_path / "data", "test", "user_id")
    assert set(users) == {((largest if dtype == "int64" else b"%d" % largest,),)}
