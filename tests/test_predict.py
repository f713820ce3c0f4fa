"""A table of impressions scored by the command."""

import pathlib
import types

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hccm_tf.data import Schema
from hccm_tf.errors import InputError
from hccm_tf.predict import _build, predict
from hccm_tf.preparation.examples.build import build_examples
from tests import processes
from tests.preparation.examples.logs import make_items, make_log, read_impressions
from tests.reference import histories

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(fitted, tmp_path_factory):
    """RUN of `hccm`."""
    folder = tmp_path_factory.mktemp("predict") / "run"
    fitted["hccm"].save(folder)
    return folder


@pytest.fixture(scope="module")
def expected(shop, fitted):
    """The predictions of the shop's test split, by rows of the log."""
    return fitted["hccm"].predictions(shop.data).set_index("row").ctr.sort_index()


def _check(path, table, expected):
    frame = pd.read_parquet(path)
    names = ["user_id", "item_id", "timestamp"]
    assert list(frame) == ["row", *names, "ctr"]
    pd.testing.assert_frame_equal(frame[names], table[names].reset_index(drop=True))
    np.testing.assert_allclose(frame.ctr, expected, atol=1e-6)
    assert frame.ctr.std() > 1e-4
    return frame


def test_a_table_and_its_history(shop, run, expected, tmp_path, capsys):
    """In two files, against the predictions of the run's own data."""
    log = shop.impressions.drop(columns="split", errors="ignore")
    table = log.loc[expected.index]
    (tmp_path / "table").mkdir()
    # More columns than the model knows, of which one it could not read.
    more = table.assign(weight=2.0, tags=[["x"]] * len(table))
    more[:70].to_parquet(tmp_path / "table" / "a.parquet")
    more[70:].to_parquet(tmp_path / "table" / "b.parquet")
    log.drop(index=expected.index).to_csv(tmp_path / "old.csv", index=False)
    output = tmp_path / "scores.parquet"
    predict(run, tmp_path / "table", output, history=tmp_path / "old.csv")
    frame = _check(output, table, expected)
    np.testing.assert_array_equal(frame.row, np.arange(len(table)))
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"{len(table)} impressions, 0 of them without")
    # Nothing is left beside it, and nothing written over.
    assert not list(tmp_path.glob("scores.parquet.*"))
    with pytest.raises(InputError, match="output=.*exists already"):
        predict(run, tmp_path / "table", output)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_dates_of_table_and_history_differ(shop, run, expected, tmp_path, form):
    """Text, partly with a zone, or times in one, beside times without or seconds."""
    log = shop.impressions.drop(columns="split", errors="ignore")
    times = pd.to_datetime(log.timestamp, unit="s")
    old = log.drop(index=expected.index)
    if form == "csv":
        dates = times.dt.strftime("%Y-%m-%dT%H:%M:%S")
        table = log.assign(timestamp=dates + np.where(log.index % 2, "Z", ""))
        table = table.loc[expected.index]
        table.to_csv(tmp_path / "table.csv", index=False)
        old = old.assign(timestamp=times)
    else:
        dates = times.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
        table = log.assign(timestamp=dates).loc[expected.index]
        table.to_parquet(tmp_path / "table.parquet")
    old.to_parquet(tmp_path / "old.parquet")
    output = tmp_path / "scores.parquet"
    paths = tmp_path / f"table.{form}", output
    predict(run, *paths, history=tmp_path / "old.parquet")
    _check(output, table, expected)


def test_it_says_how_many_have_no_history(shop, run, expected, tmp_path, capsys):
    log = shop.impressions.drop(columns="split", errors="ignore")
    table = log.loc[expected.index].reset_index(drop=True)
    empty = sum(not history for history in histories(table, 1))
    assert 0 < empty < len(table)
    says = f"{empty} of {len(table)} impressions have no history: --history=LOG gives"
    table.to_parquet(tmp_path / "table.parquet")
    log.drop(index=expected.index)[:1].to_parquet(tmp_path / "old.parquet")
    predict(run, tmp_path / "table.parquet", tmp_path / "alone.parquet")
    assert says in capsys.readouterr().out
    predict(
        run,
        tmp_path / "table.parquet",
        tmp_path / "scores.parquet",
        history=tmp_path / "old.parquet",
    )
    assert "no history" not in capsys.readouterr().out


def test_the_command(shop, run, expected, tmp_path):
    """Histories in the table; an item that the catalogue lacks; a catalogue named."""
    log = shop.impressions.assign(split="history")
    log.loc[expected.index, "split"] = ["test", "train"] * (len(expected) // 2)
    unknown = log.iloc[[-1]].assign(item_id=-5, split="test")
    log = pd.concat([log, unknown], ignore_index=True)
    log.to_csv(tmp_path / "log.csv", index=False)
    shop.items.to_csv(tmp_path / "items.csv", index=False)
    result = processes.run(
        [
            *("-m", "hccm_tf.predict", f"--from_run={run}"),
            f"--impressions={tmp_path / 'log.csv'}",
            f"--items={tmp_path / 'items.csv'}",
            f"--output={tmp_path / 'scores.parquet'}",
        ],
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    assert f"{len(expected) + 1} impressions, 1 of them without" in result.stdout
    rows = [*expected.index, len(log) - 1]
    frame = _check(tmp_path / "scores.parquet", log.loc[rows], [*expected, np.nan])
    assert frame.row.tolist() == rows


def test_what_is_wrong_is_one_line(shop, run, tmp_path, monkeypatch):
    table = shop.impressions[:40].drop(columns="split", errors="ignore")
    column = next(
        name
        for name in table
        if name not in ("user_id", "item_id", "timestamp", "label")
    )

    def fails(match, frame=table, output="scores.parquet", **arguments):
        frame.to_csv(tmp_path / "table.csv", index=False)
        with pytest.raises(InputError, match=match) as caught:
            predict(run, tmp_path / "table.csv", tmp_path / output, **arguments)
        assert "\n" not in str(caught.value) and "part/" not in str(caught.value)
        assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]

    fails("output=.*parquet", output="scores.csv")
    fails("output=.*no folder", output="none/scores.parquet")
    fails(f"table.csv: no column {column}, which", table.drop(columns=column))
    fails("table.csv: no column item_id", table.drop(columns="item_id"))
    fails("table.csv.*row 3: a label is 0 or 1", table.assign(label=[0, 1, 7, 0] * 10))
    dates = ["2024-05-31"] * 38 + ["2024-05-31T18:30:00Z", "yesterday"]
    with monkeypatch.context() as patch:
        patch.setattr("hccm_tf.preparation.tables.CSV_BLOCK_BYTES", 300)
        message = "table.csv: .*timestamp, row 40: not a time: .*'yesterday'"
        fails(message, table.assign(timestamp=dates))
    fails("none: no such", items=tmp_path / "none")


def test_text_stays_text_and_new_items_are_allowed(tmp_path):
    """Ids that CSV would take for numbers, and more unknown items than a build has."""
    items = make_items(item_id=["007", "7", "01", "1", "a"])
    log = make_log(60, item_id=items.item_id[np.arange(60) % 5].to_numpy())
    build_examples(items, log, tmp_path / "trained")
    schema = Schema.load(tmp_path / "trained")
    items.to_parquet(tmp_path / "items.parquet")
    table = log[:4].assign(item_id=["007", "7", "0007", "8"], label=[None, None, 1, 0])
    table = pd.concat([table, table[2:].assign(item_id="9")])
    table.to_csv(tmp_path / "table.csv", index=False)
    found, count = _build(
        types.SimpleNamespace(schema=schema),
        tmp_path,
        tmp_path / "table.csv",
        tmp_path / "items.parquet",
        None,
    )
    assert count == 6 and found["item_id"] == pa.string()
    found = read_impressions(tmp_path / "data", "test", "row", "item_id")
    assert found == [((0,), (b"007",)), ((1,), (b"7",))]
