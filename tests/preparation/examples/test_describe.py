import collections

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.examples.describe import describe
from tests.preparation.examples.logs import make_items, make_log
from tests.preparation.request_logs import MAX_HISTORY, MOMENT, make_requests


def _blocks(lines):
    """Of each request: its fields, a dict, and its candidates' and clicks' lines."""
    starts = [i for i, line in enumerate(lines) if not line.startswith(" ")]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        block = lines[start + 1 : stop]
        deeper = np.array([line.startswith("    ") for line in block])
        candidates, history = (
            next(i for i, line in enumerate(block) if line.startswith(f"  {word}"))
            for word in ("candidates: ", "history, oldest click first: ")
        )
        assert not deeper[[*range(candidates + 1), history]].any()
        assert deeper[candidates + 1 : history].all() and deeper[history + 1 :].all()
        rows = block[candidates + 1 : history], block[history + 1 :]
        counts = [int(block[i].split(": ")[1]) for i in (candidates, history)]
        assert counts == [len(lines) for lines in rows]
        yield dict(line.split(maxsplit=1) for line in block[:candidates]), *rows


def _path(name):
    return f"photos/{name}" if name else "none"


def _seconds(text):
    return pd.Timestamp(text.removesuffix(" UTC"), tz="UTC").timestamp()


def _click(row):
    return (
        f"    item_id {row.item_id}, category {row.category}, image {_path(row.image)}"
    )


def test_impressions_are_those_of_the_log(shop):
    lines = describe(shop.data, "train", 40, "photos")
    log = shop.log.fillna({"image": ""})
    blocks = list(_blocks(lines))
    assert len(blocks) == 40
    for found, (candidate,), clicks in blocks:
        same = (log.user_id == int(found["user_id"])) & (
            log.timestamp == _seconds(found["timestamp"])
        )
        fields = dict(text.split() for text in candidate.split(", "))
        (row,) = log[same & (log.item_id == int(fields["item_id"]))].itertuples()
        assert set(found) == {"user_id", "timestamp", "hour"}
        assert found["hour"] == str(row.hour)
        assert fields["category"] == row.category
        assert fields["image"] == _path(row.image)
        assert fields["label"] == str(row.label)
        assert fields["row"] == str(row.Index)
        assert float(fields["price"]) == pytest.approx(row.price, rel=1e-5)
        assert clicks == [_click(click) for click in log.iloc[row.history].itertuples()]
    assert any(clicks for _, _, clicks in blocks)
    assert any("image none" in click for _, _, clicks in blocks for click in clicks)


def test_requests_have_their_candidates(tmp_path):
    items, log = make_requests()
    table = log.drop(columns="history")
    build_examples(items, table, tmp_path / "data", max_history=MAX_HISTORY)
    log = log.merge(items, on="item_id", how="left")
    described = log.assign(
        text=[
            f"label {row.label}, item_id {row.item_id}, category {row.category}, "
            f"image {_path(row.image)}, position {row.position}, "
            f"price {np.float32(row.price):g}, row {row.Index}, weight {row.weight:g}"
            for row in log.itertuples()
        ]
    )
    for split, rows in described.groupby("split"):
        found = collections.defaultdict(list)
        blocks = list(_blocks(describe(tmp_path / "data", split, 9999, "photos")))
        for fields, candidates, clicks in blocks:
            key = int(fields["user_id"]), int(_seconds(fields["timestamp"]))
            found[key] += [line.strip() for line in candidates]
            same = rows[(rows.user_id == key[0]) & (rows.timestamp == key[1])]
            assert fields["hour"] == str(same.hour.iloc[0])
            history = log.iloc[same.history.iloc[0]]
            assert clicks == [_click(click) for click in history.itertuples()]
        expected = rows.groupby(MOMENT).text.agg(sorted).to_dict()
        assert {key: sorted(texts) for key, texts in found.items()} == expected
        assert len(blocks) < len(rows)


def test_seconds_that_differ_stand_with_the_candidates(tmp_path):
    log = make_log(request_id=np.arange(40) // 2)
    log["user_id"], log["timestamp"] = 7, np.arange(40)
    build_examples(make_items(), log, tmp_path / "data")
    (found, candidates, _), *_ = _blocks(describe(tmp_path / "data", "test", 1))
    assert set(found) == {"user_id"}
    assert ["timestamp 1970-01-01 00:00:" in line for line in candidates] == [True] * 2


def test_what_cannot_be_read(shop, tmp_path):
    with pytest.raises(InputError, match="split dev"):
        describe(shop.data, "dev")
    for name in ("schema.json", "catalogue.parquet", "dataset_info.json"):
        (tmp_path / name).write_bytes((shop.data / name).read_bytes())
    (path,) = DataFolder(shop.data).files("test")
    content = tf.io.gfile.GFile(path, "rb").read()
    path = tmp_path / path.split("/")[-1]
    path.write_bytes(content[: len(content) // 2])
    assert describe(tmp_path, "test", 2) == describe(shop.data, "test", 2)
    with pytest.raises(InputError, match="of split test cannot be read"):
        describe(tmp_path, "test", 300)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="split test is empty"):
        describe(tmp_path, "test")
