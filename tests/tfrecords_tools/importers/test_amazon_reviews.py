import gzip
import json
import pathlib

import numpy as np
import pandas as pd
import pytest

from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from tests import processes
from tests.preparation.examples.logs import read_rows
from tests.reference import histories
from tfrecords_tools.importers import amazon_reviews as tool
from tfrecords_tools.importers.amazon_metadata import main_image, to_price

ROOT = pathlib.Path(__file__).parents[3]
URL = "https://m.media-amazon.com/images/I/"
LIST_IMAGES = [
    {"thumb": URL + "t1", "large": URL + "l1", "hi_res": None, "variant": "PT01"},
    {"thumb": URL + "t2", "large": URL + "l2", "hi_res": URL + "h2", "variant": "MAIN"},
]
DICT_IMAGES = {
    "hi_res": [None, URL + "h4"],
    "large": [URL + "l3", URL + "l4"],
    "thumb": [URL + "t3", URL + "t4"],
    "variant": ["MAIN", "PT01"],
}
METADATA = [
    {
        "main_category": "All Beauty",
        "title": "Crème “Été”",
        "price": 12.5,
        "images": LIST_IMAGES,
        "store": "Howard",
        "categories": ["Beauty", "Skin", "Creams"],
        "parent_asin": "B000000001",
    },
    {
        "main_category": "All Beauty",
        "price": "None",
        "images": DICT_IMAGES,
        "store": None,
        "categories": [],
        "parent_asin": "B000000002",
    },
    # An ISBN: digits only, with a zero in front.
    {"main_category": None, "images": None, "parent_asin": "0000000123"},
    {"price": "$9.99", "images": [], "parent_asin": "B000000004"},
    {"images": [], "categories": None, "store": "S", "parent_asin": "B000000005"},
    {"main_category": "Unreviewed", "images": [], "parent_asin": "B000000009"},
    {"main_category": "Repeated", "images": [], "parent_asin": "B000000001"},
]
MILLISECOND = 1_588_615_855_070
TRAIN = [
    ("AE1", "B000000001", 5.0, MILLISECOND),
    ("AE1", "B000000002", 1.0, MILLISECOND + 5_000),
    ("AE2", "0000000123", 4.0, MILLISECOND + 900),
    ("007", "B000000005", 2.0, MILLISECOND),
    ("007", "UNKNOWN", 2.0, MILLISECOND),
]
VALIDATION = [
    ("AE1", "B000000004", 3.0, MILLISECOND + 9_999),
    ("AE2", "B000000001", 4.0, MILLISECOND + 70_000),
]
TEST = [("AE2", "B000000004", 4.0, MILLISECOND + 80_000)]
CLICKED = {(user, item) for user, item, *_ in [*TRAIN, *VALIDATION, *TEST]}
CATALOGUE = ["B000000001", "B000000002", "0000000123", "B000000004", "B000000005"]


def _write_csv(path, rows, history=False):
    header = ["user_id", "parent_asin", "rating", "timestamp"]
    if history:
        header.append("history")
        rows = [
            (*row, " ".join(r[1] for r in rows[:place] if r[0] == row[0]))
            for place, row in enumerate(rows)
        ]
    lines = [",".join(map(str, row)) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n")


def _write_metadata(path, lines=METADATA):
    text = "\n".join(
        line if isinstance(line, str) else json.dumps(line) for line in lines
    )
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as handle:
        handle.write(text + "\n")


@pytest.fixture
def dataset(tmp_path):
    _write_metadata(tmp_path / "meta.jsonl.gz")
    for name, rows in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
        _write_csv(tmp_path / f"{name}.csv", rows, history=name == "train")
    return tmp_path


def _import(dataset, name="shop", meta="meta.jsonl.gz", splits=tool.SPLITS, **options):
    files = {split: dataset / f"{split or 'reviews'}.csv" for split in splits}
    tool.import_amazon_reviews(dataset / meta, files, dataset / name, **options)
    return pd.read_parquet(dataset / name / "impressions.parquet")


def test_items(dataset):
    _import(dataset)
    items = pd.read_parquet(dataset / "shop" / "items.parquet")
    assert items.item_id.tolist() == CATALOGUE
    assert items.image.tolist() == [URL + "l2", URL + "l3", "", "", ""]
    assert items.category.tolist() == ["Creams", "All Beauty", "", "", ""]
    assert items.store.tolist() == ["Howard", "", "", "", "S"]
    np.testing.assert_array_equal(items.price, [12.5, np.nan, np.nan, 9.99, np.nan])


@pytest.mark.parametrize(
    ("images", "url"),
    [
        (None, ""),
        ([], ""),
        ([None], ""),
        ([{"thumb": "t", "large": None, "hi_res": "h", "variant": "MAIN"}], "h"),
        ([{"thumb": "t", "large": None, "variant": "MAIN"}], "t"),
        ([{"thumb": None, "large": None, "hi_res": None, "variant": "MAIN"}], ""),
        # No MAIN: the first.
        ([{"large": "a", "variant": "PT01"}, {"large": "b", "variant": "PT02"}], "a"),
        ({"hi_res": [], "large": [], "thumb": [], "variant": []}, ""),
        ({"hi_res": None, "large": None, "thumb": None, "variant": None}, ""),
        (
            {"hi_res": ["g", "h"], "large": ["a", None], "variant": ["PT01", "MAIN"]},
            "h",
        ),
    ],
)
def test_main_image(images, url):
    assert main_image(images) == url


@pytest.mark.parametrize(
    ("value", "price"),
    [
        (None, None),
        (3, 3.0),
        (12.99, 12.99),
        (float("nan"), None),
        ("12.99", 12.99),
        ("$12.99", 12.99),
        ("from 1,299.00", 1299.0),
        ("$10.00 - $20.00", 10.0),
        ("—", None),
        ("None", None),
        ("", None),
    ],
)
def test_price(value, price):
    assert to_price(value) == price


@pytest.mark.parametrize("block_bytes", [128, 1 << 23])
def test_clicks_and_negatives(dataset, monkeypatch, block_bytes, capsys):
    monkeypatch.setattr(tool, "CSV_BLOCK_BYTES", block_bytes)
    log = _import(dataset, negatives=2)
    expected = [
        (user, item, time / 1000, split)
        for split, rows in zip(tool.SPLITS, (TRAIN, VALIDATION, TEST), strict=True)
        for user, item, _, time in rows
        if item != "UNKNOWN"
    ]
    columns = ["user_id", "item_id", "timestamp", "split"]
    clicks = log[log.label == 1]
    assert list(clicks[columns].itertuples(index=False, name=None)) == expected
    rest = log[log.label == 0]
    assert not CLICKED & set(zip(rest.user_id, rest.item_id, strict=True))
    assert set(rest.item_id) <= set(CATALOGUE)
    context = ["user_id", "timestamp", "split"]
    context.append("request_id")
    np.testing.assert_array_equal(
        rest[context], clicks[context].loc[np.repeat(clicks.index, 2)]
    )
    assert clicks.request_id.tolist() == list(range(7))
    assert "5 items, 7 clicks, 14 negatives; left out: 1 reviews of 1 items" in (
        capsys.readouterr().out
    )


def test_the_seed_decides(dataset):
    logs = [
        _import(dataset, str(name), negatives=20, seed=seed)
        for name, seed in enumerate((1, 1, 2))
    ]
    pd.testing.assert_frame_equal(logs[0], logs[1])
    assert not logs[0].equals(logs[2])


def test_one_file_has_no_split(dataset):
    _write_csv(dataset / "reviews.csv", [*TRAIN, *VALIDATION, *TEST])
    _write_metadata(dataset / "meta.jsonl")
    log = _import(dataset, meta="meta.jsonl", splits=[None])
    columns = ["user_id", "request_id", "item_id", "timestamp", "label"]
    assert log.columns.tolist() == columns
    assert len(log) == 14


def test_a_history_is_what_was_reviewed_before(dataset):
    log = _import(dataset)
    reviews = [*TRAIN, *VALIDATION, *TEST]
    for row, history in enumerate(histories(log, 100)):
        user, second = log.user_id[row], log.timestamp[row] // 1
        before = [
            (time, item)
            for name, item, _, time in reviews
            if name == user and time // 1000 < second and item != "UNKNOWN"
        ]
        assert log.item_id[history].tolist() == [item for _, item in sorted(before)]


def test_a_click_and_its_negatives_are_a_request(dataset, tmp_path):
    second = ("AE2", "B000000002", 5.0, MILLISECOND + 80_001)
    _write_csv(dataset / "test.csv", [*TEST, second])
    log = _import(dataset, negatives=2)
    tables = (
        dataset / "shop" / "items.parquet",
        dataset / "shop" / "impressions.parquet",
    )
    build_examples(*tables, tmp_path / "data")
    log = log.assign(item_id=log.item_id.map(str.encode), history=histories(log, 100))
    names = ("user_id", "item_id", "label", "history_item_id")
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        expected = [
            (
                (rows.user_id.iloc[0].encode(),),
                tuple(rows.item_id),
                (1, 0, 0),
                tuple(log.item_id[rows.history.iloc[0]]),
            )
            for _, rows in log[log.split == split].groupby("request_id")
        ]
        assert len(expected) == count
        found = read_rows(tmp_path / "data", split, *names)
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"parent_asin": "B1"', "line 2: .*JSONDecodeError"),
        ('["B1"]', "line 2: .*TypeError"),
        ('{"asin": "B1"}', "line 2: .*KeyError: 'parent_asin'"),
        (
            '{"parent_asin": "B000000001", "images": ["http://a"]}',
            "line 2: .*AttributeError",
        ),
    ],
)
def test_a_bad_line_of_metadata_is_named(dataset, line, message):
    for name in ("bad.jsonl", "bad.jsonl.gz"):
        _write_metadata(dataset / name, [METADATA[1], line, METADATA[0]])
        with pytest.raises(InputError, match=f"{name}: {message}"):
            _import(dataset, meta=name)
    assert not (dataset / "shop").exists()


def test_unreadable_metadata(dataset):
    with pytest.raises(InputError, match="none.jsonl"):
        _import(dataset, meta="none.jsonl")
    (dataset / "text.jsonl.gz").write_text("no gzip")
    with pytest.raises(InputError, match="text.jsonl.gz: after line 0"):
        _import(dataset, meta="text.jsonl.gz")
    whole = (dataset / "meta.jsonl.gz").read_bytes()
    (dataset / "cut.jsonl.gz").write_bytes(whole[:-30])
    with pytest.raises(InputError, match="cut.jsonl.gz: after line"):
        _import(dataset, meta="cut.jsonl.gz")
    (dataset / "latin.jsonl").write_bytes(b'\n{"parent_asin": "\xe9"}\n')
    with pytest.raises(InputError, match="latin.jsonl: line 2: .*UnicodeDecodeError"):
        _import(dataset, meta="latin.jsonl")
    _write_metadata(dataset / "other.jsonl", [METADATA[5]])
    with pytest.raises(InputError, match="no reviewed item.*reviews of 6 items"):
        _import(dataset, meta="other.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,rating,timestamp\nA,1.0,1588615855070\n", "parent_asin"),
        ("user_id,parent_asin,timestamp\nA,B,yesterday\n", "yesterday"),
        (
            "user_id,parent_asin,timestamp\nA,B,1588615855070\nA,C,1588615855\n",
            "column timestamp, row 2: .*milliseconds. Received: 1588615855",
        ),
        ("user_id,parent_asin,timestamp\nA,B,\n", "column timestamp, row 1"),
        ("user_id,parent_asin,timestamp\nA,B\n", "3 columns, got 2"),
        ("", "mpty"),
    ],
)
def test_a_bad_review_file_is_named(dataset, text, message):
    (dataset / "validation.csv").write_text(text)
    with pytest.raises(InputError, match=f"validation.csv: .*{message}"):
        _import(dataset)
    assert not (dataset / "shop").exists()


def test_a_bad_row_is_counted_from_the_head_of_the_file(dataset, monkeypatch):
    monkeypatch.setattr(tool, "CSV_BLOCK_BYTES", 128)
    _write_csv(dataset / "test.csv", [*TEST * 9, ("AE3", "B000000004", 1.0, 3), *TEST])
    with pytest.raises(InputError, match="test.csv: column timestamp, row 10: "):
        _import(dataset)


def test_command_line(dataset):
    def run(*flags):
        return processes.run(
            [
                *("-m", "tfrecords_tools.import_amazon_reviews"),
                f"--meta={dataset / 'meta.jsonl.gz'}",
                *(f"--output_dir={dataset / 'shop'}", *flags),
            ],
            cwd=ROOT,
        )

    train = f"--train={dataset / 'train.csv'}"
    result = run(train, f"--test={dataset / 'test.csv'}")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "--reviews alone. Received: --reviews=None, train, test" in result.stderr
    result = run(train, *(f"--{n}={dataset / n}.csv" for n in tool.SPLITS[1:]))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("5 items, 7 clicks, 7 negatives")
