import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from hccm_tf.models import MODELS
from hccm_tf.serving import ask
from hccm_tf.serving.request import (
    Impressions,
    impressions_request,
    rank_request,
    to_json,
)
from tests import processes

ASK = Path(__file__).resolve().parents[2] / "hccm_tf" / "serving" / "ask.py"


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_asking_the_export_gives_the_models_answer(
    shop, fitted, versions, tmp_path, name
):
    estimator = fitted[name]
    rows = Impressions(shop.data, "test", 3).rows
    request = impressions_request(rows, shop.schema, MODELS[name].has_images)
    request = to_json("serving_default", request)
    (tmp_path / "request.json").write_text(json.dumps(request))
    words = [ASK, versions[name], tmp_path / "request.json"]
    asked = processes.run(words, cwd=tmp_path, check=True)
    answer = json.loads(asked.stdout.removeprefix("ctr = "))
    expected = estimator.predict_proba(shop.data)[:3, 1]
    np.testing.assert_allclose(answer, expected, atol=1e-5)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"signature_name": "rnk"}, "signature_name: one of "),
        ({"inputs": {"user": [1]}}, "inputs: signature serving_default takes "),
        ({"inputs": {"user_id": [1]}}, "inputs: signature serving_default takes "),
        ({"inputs": {"user_id": ["x"]}}, "inputs: signature serving_default takes "),
    ],
)
def test_asking_what_an_export_does_not_take(versions, tmp_path, capsys, changes, says):
    request = {"signature_name": "serving_default", "inputs": {}, **changes}
    (tmp_path / "request.json").write_text(json.dumps(request))
    with pytest.raises(SystemExit):
        ask.main(str(versions["din"]), tmp_path / "request.json")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {says}") and "Received: " in line


@pytest.mark.parametrize("of_many", [False, True])
def test_impressions_name_their_images(shop, requests_of_many, of_many):
    data_dir = requests_of_many if of_many else shop.data
    impressions = Impressions(data_dir, "test", 200)
    assert len(impressions.rows) == len(impressions.examples) == 200
    image = shop.items.set_index("item_id").image
    for row in impressions.rows:
        (item,) = row["item_id"]
        assert row["image"] == [image[item].encode()]
        history = [image[item].encode() for item in row["history_item_id"]]
        assert row["history_image"] == history


def test_whole_requests_of_some_impressions(shop, requests_of_many):
    """Against the log: who and what was shown, and what is in which request."""
    count = 25
    impressions = Impressions(requests_of_many, "test", count)
    requests = impressions.requests
    sizes = [len(rows) for rows in requests]
    assert len(impressions.records) == len(requests)
    assert sum(sizes[:-1]) < count < sum(sizes) and {1, 7} <= set(sizes)
    every_row = [row for rows in requests for row in rows]
    assert impressions.rows == every_row[:count]
    for rows, record in zip(requests, impressions.records, strict=True):
        features = tf.train.Example.FromString(record).features.feature
        items = [item for row in rows for item in row["item_id"]]
        assert items == list(features["item_id"].int64_list.value)
        assert all(row["history_item_id"] == rows[0]["history_item_id"] for row in rows)
        for row in rows:
            shown = shop.log.iloc[row["row"][0]]
            assert row["user_id"] == rows[0]["user_id"] == [shown.user_id]
            assert row["item_id"] == [shown.item_id]
            assert row["label"] == [shown.label]
            assert row["price"] == [np.float32(shown.price)]
            assert row["category"] == [shown.category.encode()]


def test_an_impressions_example_is_a_request_of_one(shop, requests_of_many):
    impressions = Impressions(requests_of_many, "test", 25)
    for row, example in zip(impressions.rows, impressions.examples, strict=True):
        features = tf.train.Example.FromString(example).features.feature
        assert set(features) == set(row)
        for name in set(row) - {"image", "history_image"}:
            kind = features[name].WhichOneof("kind") or "int64_list"
            assert list(getattr(features[name], kind).value) == row[name]
        assert [len(features[n].int64_list.value) for n in ("image", "row")] == [1, 1]


def test_requests_to_rank(shop, requests_of_many):
    impressions = Impressions(requests_of_many, "test", 25)
    assert impressions.requests_to_rank() == impressions.requests
    singles = Impressions(shop.data, "test", 25)
    assert [len(rows) for rows in singles.requests] == [1] * 25
    assert singles.requests_to_rank() == [singles.rows]
    request = rank_request(singles.requests_to_rank(), shop.schema, with_images=True)
    assert request["user_id"].tolist() == singles.rows[0]["user_id"]
    items = [row["item_id"][0] for row in singles.rows]
    assert request["item_id"].tolist() == [items]


# In a process of its own: Python may crash where tracing stops beside other threads.
PEAK = """
import os, sys, tracemalloc
from hccm_tf.serving.request import Impressions
tracemalloc.start()
rows = Impressions(sys.argv[1], "test", 32).rows
print(tracemalloc.get_traced_memory()[1], flush=True)
os._exit(0)
"""


def test_a_large_catalogue_does_not_become_python_objects(shop, tmp_path):
    shutil.copytree(shop.data, tmp_path / "data")
    path, count = tmp_path / "data" / "catalogue.parquet", 200_000
    others = np.arange(count) + 10**9
    more = {
        "item_id": others,
        "image": [f"{number}.jpg" for number in others],
        "image_key": others,
        "category": ["cup"] * count,
    }
    table = pq.read_table(path, columns=list(more))
    table = pa.concat_tables([table, pa.table(more, table.schema)])
    pq.write_table(table, path)
    expected = Impressions(shop.data, "test", 32).rows
    assert Impressions(tmp_path / "data", "test", 32).rows == expected
    measured = processes.run(["-c", PEAK, str(tmp_path / "data")])
    # The file itself is read through Python; all names as objects would take 30 MB.
    assert 2**10 < int(measured.stdout) < 8 * 2**20, measured
