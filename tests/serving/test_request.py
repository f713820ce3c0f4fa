import json
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hccm_tf.models import MODELS
from hccm_tf.serving.request import Impressions, impressions_request, to_json

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
    asked = subprocess.run(
        [sys.executable, ASK, versions[name], tmp_path / "request.json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    answer = json.loads(asked.stdout.removeprefix("ctr = "))
    expected = estimator.predict_proba(shop.data)[:3, 1]
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_impressions_name_their_images(shop):
    impressions = Impressions(shop.data, "test", 300)
    assert len(impressions.rows) == len(impressions.records) == 300
    image = shop.items.set_index("item_id").image
    for row in impressions.rows:
        (item,) = row["item_id"]
        assert row["image"] == [image[item].encode()]
        history = [image[item].encode() for item in row["history_item_id"]]
        assert row["history_image"] == history


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
    table = pq.read_table(path)
    table = pa.concat_tables([table, pa.table(more, table.schema)])
    pq.write_table(table, path)
    expected = Impressions(shop.data, "test", 32).rows
    tracemalloc.start()
    rows = Impressions(tmp_path / "data", "test", 32).rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == expected
    # The file itself is read through Python; all names as objects would take 30 MB.
    assert peak < 8 * 2**20
