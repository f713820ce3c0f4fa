"""Each impression keeps the number of its row in the log."""

import csv

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hccm_tf.preparation.examples.build import build_examples
from tests.preparation.examples.logs import make_items, make_log, read_impressions

SPLITS = ("train", "validation", "test")


def _rows(folder, *names):
    found = {}
    for split in SPLITS:
        for row, *values in read_impressions(folder, split, "row", *names):
            found[row[0]] = tuple(value for (value,) in values)
    return found


def _log(count):
    log = make_log(count, users=5, mark=range(count))
    return log.sample(frac=1, random_state=0).reset_index(drop=True)


def _dirty(log):
    """The log, with bad labels and unknown items, and the rows that are good."""
    log = log.astype({"label": float})
    rng = np.random.default_rng(1)
    bad, unknown = rng.choice(len(log), (2, len(log) // 10), replace=False)
    log.loc[bad, "label"] = 2
    log.loc[unknown, "item_id"] = 99
    return log, sorted(set(range(len(log))) - set(bad) - set(unknown))


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_over_files_and_pieces(tmp_path, suffix, num_shards, monkeypatch):
    # Small enough that each file has several blocks, batches and pieces.
    monkeypatch.setattr("hccm_tf.preparation.tables.CSV_BLOCK_BYTES", 600)
    monkeypatch.setattr("hccm_tf.preparation.tables.PIECE_ROWS", 40)
    monkeypatch.setattr("hccm_tf.preparation.tables.BATCH_ROWS", 16)
    log, good = _dirty(_log(300))
    (tmp_path / "log").mkdir()
    for number, rows in enumerate((log[:7], log[7:140], log[140:])):
        path = tmp_path / "log" / f"{number}.{suffix}"
        if suffix == "csv":
            rows.to_csv(path, index=False)
        else:
            table = pa.Table.from_pandas(rows, preserve_index=False)
            pq.write_table(table, path, row_group_size=20)
    make_items().to_parquet(tmp_path / "items.parquet")
    summary = build_examples(
        tmp_path / "items.parquet",
        tmp_path / "log",
        tmp_path / "data",
        max_bad_rows=30,
        num_shards=num_shards,
    )
    assert summary["rows"] == 300
    assert _rows(tmp_path / "data", "mark") == {r: (log.mark[r],) for r in good}


def test_lines_that_are_no_rows_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("hccm_tf.preparation.tables.CSV_BLOCK_BYTES", 300)
    log = _log(200).assign(note="one\nline and another")
    text = log.to_csv(index=False, lineterminator="\r", quoting=csv.QUOTE_NONNUMERIC)
    header, *lines = text.split("\r")[:-1]
    rng = np.random.default_rng(4)
    names = log.mark.tolist()
    # At both ends, in runs, and anywhere else.
    for place in sorted([0, 0, 3, 3, 3, *rng.integers(0, 200, 40), 200], reverse=True):
        lines.insert(place, "1,2,3")
        names.insert(place, None)
    (tmp_path / "log").mkdir()
    first = pd.DataFrame(log[:5])
    first.to_csv(tmp_path / "log" / "0.csv", index=False)
    (tmp_path / "log" / "1.csv").write_text("\n".join([header, *lines]) + "\n")
    make_items().to_csv(tmp_path / "items.csv", index=False)
    summary = build_examples(
        tmp_path / "items.csv", tmp_path / "log", tmp_path / "data", max_bad_rows=46
    )
    assert summary["rows"] == len(names) + 5
    expected = {row: (mark,) for row, mark in enumerate(first.mark)}
    for row, mark in enumerate(names, start=5):
        if mark is not None:
            expected[row] = (mark,)
    assert _rows(tmp_path / "data", "mark") == expected


def test_of_a_data_frame_they_are_its_places(tmp_path):
    log = _log(80).set_index(pd.Index(range(500, 580)))
    build_examples(make_items(), log, tmp_path / "data")
    marks = {row: (mark,) for row, mark in enumerate(log.mark)}
    assert _rows(tmp_path / "data", "mark") == marks
