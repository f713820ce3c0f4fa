import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.comparison.third import find_third
from hccm_tf.data.dataset import Batches
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError


def _requests(data_dir, split):
    """`(user_key, row)` of each request, as training reads them; of all, in order."""
    folder = DataFolder(data_dir)
    batches = Batches(data_dir, folder.schema(), batch_size=64)
    found = []
    for _, _, _, keys in batches.dataset(split).as_numpy_iterator():
        rows = (tuple(row[row >= 0].tolist()) for row in keys["row"])
        found += zip(keys["user_key"].tolist(), rows, strict=True)
    assert len(found) == folder.num_requests(split)
    assert sum(len(rows) for _, rows in found) == folder.num_impressions(split)
    return found


def test_a_third_of_the_users_with_all_of_their_requests(shop, tmp_path):
    third = find_third(shop.data, tmp_path)
    for split in ("validation", "test"):
        assert _requests(third, split) == _requests(shop.data, split)
    every, some = _requests(shop.data, "train"), _requests(third, "train")
    users = {user for user, _ in some}
    assert some == [request for request in every if request[0] in users]
    share = len(users) / len({user for user, _ in every})
    assert share == pytest.approx(1 / 3, abs=0.15)
    info = json.loads(pathlib.Path(DataFolder(third).info_file).read_text())
    told = next(s["numBytes"] for s in info["splits"] if s["name"] == "train")
    records = tf.data.TFRecordDataset(DataFolder(third).files("train"))
    assert int(told) == sum(len(record) for record in records.as_numpy_iterator())
    schemas = [DataFolder(folder).schema() for folder in (third, shop.data)]
    assert schemas[0].features == schemas[1].features
    for name, values in schemas[0].vocabularies.items():
        np.testing.assert_array_equal(values, schemas[1].vocabularies[name])


def test_it_is_made_once_for_the_same_data(shop, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(shop.data, data)
    third = find_third(data, tmp_path)
    (third / "mine").touch()
    assert find_third(data, tmp_path) == third and (third / "mine").exists()
    # As many requests, and others.
    shard = DataFolder(data).files("train")[0]
    records = [*tf.data.TFRecordDataset(shard).as_numpy_iterator()]
    with tf.io.TFRecordWriter(shard) as writer:
        for record in reversed(records):
            writer.write(record)
    assert find_third(data, tmp_path) != third


def test_a_damaged_record_leaves_nothing(shop, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(shop.data, data)
    shard = DataFolder(data).files("train")[0]
    content = pathlib.Path(shard).read_bytes()
    pathlib.Path(shard).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="TFRecord is missing, truncated or damaged"):
        find_third(data, tmp_path / "search")
    assert not list(tmp_path.glob("search/third-*"))


def test_too_few_users(shop, tmp_path, monkeypatch):
    monkeypatch.setattr("hccm_tf.comparison.third._chosen", lambda shard: [])
    with pytest.raises(InputError, match="too few users .* --search_trials=0"):
        find_third(shop.data, tmp_path)
    assert not list(tmp_path.iterdir())
