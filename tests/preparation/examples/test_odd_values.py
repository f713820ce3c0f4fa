"""Values that a type cannot hold, times between two seconds, items that are unknown."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hccm_tf.data.feature import MISSING
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.examples.log_values import (
    FEATURE_DTYPES,
    convert,
    seconds,
)
from tests.preparation.examples.logs import make_items, make_log, read_impressions

NAN, INFINITY = np.nan, np.inf


@pytest.mark.parametrize(
    ("values", "arrow_type", "becomes", "expected", "bad"),
    [
        ([1.0, NAN, 2.5], pa.float64(), pa.int64(), [1, None, None], [2]),
        ([2.0**53 - 1, 2.0**53], pa.float64(), pa.int64(), [2**53 - 1, None], [1]),
        ([2.0**24 - 1, 2.0**24], pa.float32(), pa.int64(), [2**24 - 1, None], [1]),
        ([7, 2**63], pa.uint64(), pa.int64(), [7, None], [1]),
        ([1.5, NAN, 1e39], pa.float64(), pa.float32(), [1.5, None, INFINITY], [2]),
        ([2**60, None], pa.int64(), pa.float32(), [2.0**60, None], []),
        ([" 1.5", "", "12,99"], pa.string(), pa.float32(), [1.5, None, None], [2]),
        (["007", None, "7.5"], pa.string(), pa.int64(), [7, None, None], [2]),
        ([1.0, NAN, 0.5], pa.float64(), pa.string(), ["1", None, "0.5"], []),
        ([True, None], pa.bool_(), pa.int64(), [1, None], []),
    ],
)
def test_what_a_type_does_not_hold(values, arrow_type, becomes, expected, bad):
    found, wrong = convert("x", pa.array(values, arrow_type), becomes)
    assert found.type == becomes and np.flatnonzero(wrong).tolist() == bad
    missing = MISSING[FEATURE_DTYPES[becomes]]
    expected = [missing if value is None else value for value in expected]
    np.testing.assert_array_equal(found.to_pylist(), expected)


def test_large_whole_numbers_as_text_have_no_exponent():
    values = pa.array([1.5e10, 123456789012.0, 0.5])
    found, _ = convert("x", values, pa.string())
    assert found.to_pylist() == ["15000000000", "123456789012", "0.5"]


@pytest.mark.parametrize(
    ("items", "log", "message"),
    [
        ({"price": [1.5, INFINITY, 1, 1, 1]}, {}, "items: column price, row 2: no num"),
        ({}, {"price": [0.5, -INFINITY] * 20}, "column price, row 2: no number"),
        ({}, {"user_id": [2.0**53] * 40}, "column user_id, row 1: no integer"),
        ({}, {"user_id": [0.5] * 40}, "column user_id, row 1: no integer"),
    ],
)
def test_they_are_bad_rows(tmp_path, items, log, message):
    with pytest.raises(InputError, match=message):
        build_examples(make_items(**items), make_log(**log), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_an_item_id_that_is_nan(tmp_path):
    # Not a null of Arrow, which pandas would make of it.
    table = pa.Table.from_pandas(make_items()).set_column(
        0, "item_id", pa.array([1.0, 2, 3, 4, NAN])
    )
    pq.write_table(table, tmp_path / "items.parquet")
    with pytest.raises(InputError, match="items: column item_id, row 5: empty"):
        build_examples(tmp_path / "items.parquet", make_log(), tmp_path / "data")


def test_a_price_of_400_digits(tmp_path):
    log = make_log().assign(price="7.5")
    log.loc[3, "price"] = "9" * 400
    log.to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(InputError, match="column price, row 4: no number.*inf"):
        build_examples(make_items(), tmp_path / "log.csv", tmp_path / "data")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([5, None, 2**40]), [(5, 0), None, None]),
        (pa.array([2**63 + 5], pa.uint64()), [None]),
        (pa.array([1.25, -1.5, NAN, 5e9]), [(1, 250_000_000), (-2, 500_000_000)]),
        (pa.array(["1.5", "noon", None]), [(1, 500_000_000), None, None]),
        (
            pa.array(["1970-01-02", "noon", " 1970-01-01T01:00:01.25+01:00 ", "7"]),
            [(86_400, 0), None, (1, 250_000_000), (7, 0)],
        ),
        (pa.array(["now", "1970-13-01", "1970-01", "2100-01-01"]), [None] * 4),
        (
            pa.array([1_500, -1], pa.timestamp("ms")),
            [(1, 5 * 10**8), (-1, 999 * 10**6)],
        ),
        (pa.array([1, None], pa.timestamp("ns", "Europe/Berlin")), [(0, 1), None]),
        (
            # The nanoseconds of one are not the end of another.
            pa.array(["1600-01-01", "1678-01-01", "1970-01-01T00:00:00.000000001"]),
            [None, (-9_214_560_000, 0), (0, 1)],
        ),
        (pa.array(["1600-01-01", "1677-12-31"]), [None] * 2),
        (pa.array([-9_214_560_001, -9_214_560_000]), [None, (-9_214_560_000, 0)]),
        (pa.array([-9_214_560_000.5]), [None]),
        (pa.array([-135_000], pa.date32()), [None]),
        (pa.array([2], pa.date32()), [(172_800, 0)]),
        (pa.array([86_400_000], pa.date64()), [(86_400, 0)]),
        (pa.array([4_102_444_800], pa.timestamp("s")), [None]),
    ],
)
def test_seconds_and_their_fractions(times, expected):
    whole, fraction, bad = seconds(times)
    found = [
        None if wrong else pair
        for *pair, wrong in zip(whole.tolist(), fraction.tolist(), bad, strict=True)
    ]
    expected += [None] * (len(times) - len(expected))
    assert found == [pair and list(pair) for pair in expected]


DATES = (
    "1969-12-31 23:59:59.5",
    "2024-05-31T18",
    "2024-05-31T18:30",
    "1678-01-01T00:00:00",
    "2099-12-31T23:59:59.999999999",
    "2100-01-01T00:00:00",
)


@pytest.mark.parametrize("zone", ["", "Z", "+02:00", "-0530", "+01"])
def test_dates_read_at_once_are_those_read_one_by_one(zone, monkeypatch):
    """A word in the column makes the difference."""
    dates = [f" {date}{zone}" for date in DATES] + [None]
    dates += [] if zone else ["2024-05-31"]
    one_by_one = seconds(pa.array([*dates, "noon"]))
    assert 3 < sum(~one_by_one[2]) < len(dates)

    def refused(*arguments, **options):
        raise AssertionError("slow")

    monkeypatch.setattr(pd, "to_datetime", refused)
    for fast, slow in zip(seconds(pa.array(dates)), one_by_one, strict=True):
        np.testing.assert_array_equal(fast, slow[:-1])
    with pytest.raises(AssertionError, match="slow"):
        seconds(pa.array([*dates, "noon"]))


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)],
)
@pytest.mark.parametrize("dtype", [int, float, str])
def test_another_unit_is_named(tmp_path, unit, factor, dtype):
    log = make_log()
    log["timestamp"] = ((1_700_000_000 + log.timestamp) * factor).astype(dtype)
    message = (
        rf"timestamp, row 1: .*before the year 2100; of {unit}, divide by {factor}"
    )
    with pytest.raises(InputError, match=message):
        build_examples(make_items(), log, tmp_path / "data")


@pytest.mark.parametrize("form", ["float", "text", "moments", "csv"])
def test_clicks_of_one_second_are_in_order(tmp_path, form):
    log = pd.DataFrame(
        {
            "user_id": [5, 5, 5, 6, 6, 6, 5, 6],
            "item_id": [3, 1, 2, 1, 2, 3, 4, 4],
            "timestamp": [1.9, 1.1, 1.5, 3, 4, 5, 10, 11],
            "label": [1, 1, 1, 0, 1, 0, 0, 1],
            "split": ["train"] * 4 + ["validation"] * 2 + ["test"] * 2,
        }
    )
    path = log
    if form == "text":
        log["timestamp"] = log.timestamp.astype(str)
    elif form == "moments":
        log["timestamp"] = pd.to_datetime(log.timestamp * 1000, unit="ms")
    elif form == "csv":
        path = tmp_path / "log.csv"
        log.to_csv(path, index=False)
    build_examples(make_items(), path, tmp_path / "data", max_history=3)
    names = ("user_id", "timestamp", "history_item_id")
    rows = read_impressions(tmp_path / "data", "test", *names)
    assert rows == [((5,), (10,), (1, 2, 3)), ((6,), (11,), (2,))]
    # The three clicks are of one second, and so one request.
    assert {h for _, _, h in read_impressions(tmp_path / "data", "train", *names)} == {
        ()
    }


def test_unknown_items_over_a_limit_are_an_error(tmp_path, capsys):
    log = make_log(split="train")
    log.loc[:1, "split"] = "validation", "test"
    log.loc[10:29, "item_id"] = [101, 102, 103, 104, 105] * 4
    message = r"^20 of 40 impressions \(50%\).*such as 101, 102, 103, 104, 105: .*="
    with pytest.raises(InputError, match=message + "0.4"):
        build_examples(make_items(), log, tmp_path / "data", max_unknown_share=0.4)
    build_examples(make_items(), log, tmp_path / "data")
    summary = json.loads((tmp_path / "data" / "summary.json").read_text())
    assert summary["skipped"]["unknown_item"] == 20
    (warning,) = summary["warnings"]
    assert "20 of 40 impressions (50%)" in warning
    assert warning in capsys.readouterr().err
    log.loc[30, "item_id"] = 106
    with pytest.raises(InputError, match=r"^21 of 40 impressions \(52%\)"):
        build_examples(make_items(), log, tmp_path / "over")
    assert not (tmp_path / "over").exists()


def test_unknown_items_of_histories_count(tmp_path, capsys):
    log = make_log(8).drop(columns="timestamp")
    log["history_item_id"] = [[1.0, NAN, 2.0], [901.0, 902.0]] * 4
    build_examples(make_items(), log, tmp_path / "data")
    message = "8 of 16 items of histories (50%) are of items that are not in the"
    assert message in capsys.readouterr().err
    log["history_item_id"] = [[1.0, NAN, 901.0], [902.0, 903.0]] * 4
    with pytest.raises(InputError, match=r"^12 of 16 items of histories \(75%\)"):
        build_examples(make_items(), log, tmp_path / "over")
