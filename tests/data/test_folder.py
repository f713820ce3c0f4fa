import json
import pathlib
import shutil

import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError

SPLITS = ["train", "validation", "test"]


def test_catalogue(shop):
    items = DataFolder(shop.data).catalogue()["item_id"].to_pylist()
    assert items == shop.items.item_id.tolist()


def test_without_a_column(tmp_path):
    pd.DataFrame({"item_id": [1]}).to_parquet(tmp_path / "catalogue.parquet")
    with pytest.raises(InputError, match="catalogue.parquet.*image"):
        DataFolder(tmp_path).catalogue()


@pytest.mark.parametrize("content", [None, b"", b"item_id,image\n"])
def test_missing_or_damaged(tmp_path, content):
    if content is not None:
        (tmp_path / "catalogue.parquet").write_bytes(content)
    with pytest.raises(InputError, match="catalogue.parquet.*build the examples again"):
        DataFolder(tmp_path).catalogue()


@pytest.mark.parametrize("as_type", [str, pathlib.Path])
def test_its_files_are_those_that_are_there(shop, as_type):
    folder = DataFolder(as_type(shop.data))
    files = [path for split in SPLITS for path in folder.files(split)]
    assert all(isinstance(path, str) for path in files)
    assert sorted(map(pathlib.Path, files)) == folder.found_files()
    for name in ("schema", "catalogue", "info", "features", "summary"):
        assert pathlib.Path(getattr(folder, f"{name}_file")).exists()


@pytest.mark.parametrize("split", SPLITS)
def test_number_of_impressions(shop, split):
    folder = DataFolder(shop.data)
    count = int((shop.log.split == split).sum())
    assert folder.num_impressions(split) == count


@pytest.mark.parametrize("split", SPLITS)
def test_number_of_requests(shop, split):
    folder = DataFolder(shop.data)
    rows = shop.log[shop.log.split == split]
    # None is so long that it is cut.
    count = len(rows.groupby(["user_id", "timestamp"]))
    assert folder.num_requests(split) == count
    assert sum(folder.shard_lengths()[split]) == count


def test_what_records_are_like(shop, tmp_path):
    folder = DataFolder(shop.data)
    assert (folder.max_candidates, folder.weighted) == (1, False)
    assert {"row", "user_id", "item_id", "timestamp"} <= folder.columns()
    assert "weight" not in folder.columns()
    summary = {"max_candidates": 7, "weighted": True}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    folder = DataFolder(tmp_path)
    assert (folder.max_candidates, folder.weighted) == (7, True)


def test_shards_are_named_by_their_number():
    folder = DataFolder("s3://bucket/DATA")
    expected = "s3://bucket/DATA/impressions-test.tfrecord-00003-of-00012"
    assert folder.shard_file("test", 3, 12) == expected


def test_schema(shop):
    folder = DataFolder(shop.data)
    assert folder.schema().features == shop.schema.features
    assert set(folder.schema().vocabularies) == set(shop.schema.vocabularies)
    without = folder.schema(with_vocabularies=False)
    assert without.features == shop.schema.features and not without.vocabularies


@pytest.mark.parametrize(("found", "said"), [(None, "unknown"), (1, "1"), (7, "7")])
def test_another_format_is_refused(shop, tmp_path, found, said):
    shutil.copytree(shop.data / "vocabularies", tmp_path / "vocabularies")
    content = json.loads((shop.data / "schema.json").read_text())
    assert content.pop("format") == 2
    if found is not None:
        content["format"] = found
    (tmp_path / "schema.json").write_text(json.dumps(content))
    message = (
        rf"schema.json: format {said}, this package reads 2; make it anew with "
        "python -m tfrecords_tools.build_examples$"
    )
    for read in (Schema.load, lambda path: DataFolder(path).schema()):
        with pytest.raises(InputError, match=message):
            read(tmp_path)


def test_missing_split_and_folder(shop, tmp_path):
    with pytest.raises(InputError, match="split other"):
        DataFolder(shop.data).files("other")
    for count in ("num_impressions", "num_requests"):
        with pytest.raises(InputError, match="other.*train, validation, test"):
            getattr(DataFolder(shop.data), count)("other")
    with pytest.raises(InputError, match="dataset_info.json.*build_examples"):
        DataFolder(tmp_path).num_requests("train")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"splits": [{"name": "train"}]}'])
def test_damaged_counts(tmp_path, text):
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(InputError, match="dataset_info.json: cannot be read"):
        DataFolder(tmp_path).files("train")
    (tmp_path / "features.json").write_text(text)
    with pytest.raises(InputError, match="features.json: cannot be read.*build_ex"):
        DataFolder(tmp_path).columns()


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"splits": 3, "weighted": {'])
def test_damaged_summary(tmp_path, text):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    message = "summary.json: cannot be read.*build_examples"
    folder = DataFolder(tmp_path)
    with pytest.raises(InputError, match=message):
        folder.num_impressions("train")
    for name in ("max_candidates", "weighted"):
        with pytest.raises(InputError, match=message):
            getattr(folder, name)


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_damaged_records_are_reported(shop, tmp_path, damage):
    path = tmp_path / "records"
    content = bytearray(
        pathlib.Path(DataFolder(shop.data).files("test")[0]).read_bytes()
    )
    if damage == "truncated":
        path.write_bytes(content[:-3])
    elif damage == "changed":
        content[100] ^= 1
        path.write_bytes(content)
    with pytest.raises(InputError, match="DATA: a TFRecord.*tfrecords_tools.validate"):
        with DataFolder("DATA").report_damage():
            list(tf.data.TFRecordDataset(str(path)))
