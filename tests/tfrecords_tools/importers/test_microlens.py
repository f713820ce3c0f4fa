import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from tests import processes
from tests.preparation.examples.logs import read_impressions
from tfrecords_tools.importers import microlens as tool

ROOT = pathlib.Path(__file__).parents[3]
LENGTH = 4
# The challenge's tables pad on the left; rows 1 and 3 have padding elsewhere.
TRAIN = [
    # user, item, item_seq, likes_level, views_level, label
    (11, 1, [0, 0, 3, 2], 5, 9, 1),
    (11, 2, [3, 1, 0, 0], 2, 0, 0),
    (12, 5, [0, 0, 0, 0], 1, 1, 0),
    (13, 4, [5, 0, 5, 1], 7, 3, 1),
    (11, 5, [0, 3, 0, 2], 1, 1, 0),
]
VALID = [
    (user, 1 + user % 5, [0, 0, 0, 1 + (user + 1) % 5], 3, 4, user % 2)
    for user in range(100, 150)
    for _ in range(2)
]
TEST = [(14, 3, [0, 1, 2, 4], 6, 6, 1), (15, 1, [0, 0, 0, 2], 0, 8, 0)]
ITEMS = {0: [0, 0, 0], 1: [0, 0, 8], 2: [0, 6, 2], 3: [9, 4, 1], 4: [0] * 3, 5: [7] * 3}


def _log(rows, dtype, label=True):
    user, item, seq, likes, views, labels = zip(*rows, strict=True)
    table = {
        "user_id": pa.array(user, pa.int64()),
        "item_seq": pa.array(seq, dtype),
        "item_id": pa.array(item, pa.int64()),
        "likes_level": pa.array(likes, pa.int64()),
        "views_level": pa.array(views, pa.int64()),
    }
    if label:
        table["label"] = pa.array(labels, pa.int64())
    return pa.table(table)


@pytest.fixture(params=[pa.list_(pa.int64()), pa.list_(pa.int64(), LENGTH)], ids=str)
def dataset(request, tmp_path):
    path = tmp_path / "MicroLens_1M_x1"
    path.mkdir()
    pq.write_table(_log(TRAIN, request.param), path / "train.parquet")
    pq.write_table(_log(VALID, request.param), path / "valid.parquet")
    unlabelled = _log(TEST, request.param, label=False)
    pq.write_table(unlabelled, path / "test.parquet")
    items = {
        "item_id": pa.array(ITEMS, pa.int64()),
        "item_tags": pa.array(ITEMS.values(), pa.list_(pa.int64(), 3)),
        "item_emb_d128": pa.array([[0.5] * 128] * 6, pa.list_(pa.float32(), 128)),
    }
    pq.write_table(pa.table(items), path / "item_info.parquet")
    return path


def _import(dataset, name="shop"):
    tool.import_microlens(dataset, dataset.parent / name)
    return pd.read_parquet(dataset.parent / name / "impressions.parquet")


def _rows(log):
    columns = ["user_id", "item_id", "history_item_id", "likes_level", "views_level"]
    values = [log[name].tolist() for name in [*columns, "label"]]
    values[2] = [list(history) for history in values[2]]
    return list(zip(*values, strict=True))


def _expected(rows):
    return [
        (user, item, [value for value in seq if value], *rest)
        for user, item, seq, *rest in rows
    ]


def test_items(dataset):
    _import(dataset)
    items = pd.read_parquet(dataset.parent / "shop" / "items.parquet")
    assert items.item_id.tolist() == [1, 2, 3, 4, 5]
    assert items.image.tolist() == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert items.category.tolist() == [8, 6, 9, 0, 7]


@pytest.mark.parametrize("batch_rows", [3, 1 << 16])
def test_impressions(dataset, monkeypatch, batch_rows):
    monkeypatch.setattr(tool, "BATCH_ROWS", batch_rows)
    log = _import(dataset)
    assert "timestamp" not in log
    assert log.split.unique().tolist()[0] == "train"
    assert _rows(log[log.split == "train"]) == _expected(TRAIN)
    assert _rows(log[log.split != "train"]) == _expected(VALID)
    table = pq.read_schema(dataset.parent / "shop" / "impressions.parquet")
    assert table.field("history_item_id").type == pa.list_(pa.int64())


def test_valid_is_cut_in_two_by_user(dataset):
    log = _import(dataset)
    rest = log[log.split != "train"]
    assert set(rest.split) == {"validation", "test"}
    assert (rest.groupby("user_id").split.nunique() == 1).all()
    # Five standard deviations of fifty fair coins.
    assert abs((rest.groupby("user_id").split.first() == "test").sum() - 25) < 18
    assert rest.equals(_import(dataset, "again")[log.split != "train"])


def test_a_labelled_test_is_the_test_split(dataset, capsys):
    pq.write_table(_log(TEST, pa.list_(pa.int64())), dataset / "test.parquet")
    log = _import(dataset)
    for split, rows in (("train", TRAIN), ("validation", VALID), ("test", TEST)):
        assert _rows(log[log.split == split]) == _expected(rows)
    assert "5 items, impressions: {'train': 5, 'validation': 100, 'test': 2}" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("placeholder", [0, -1, None])
def test_a_test_with_placeholders_has_no_labels(dataset, placeholder):
    rows = [(*row[:-1], placeholder) for row in TEST]
    pq.write_table(_log(rows, pa.list_(pa.int64())), dataset / "test.parquet")
    log = _import(dataset)
    assert not set(log.user_id) & {14, 15}
    assert (log.split == "test").any()


def test_a_history_never_holds_padding_or_more_than_the_sequence(dataset):
    log = _import(dataset)
    source = {row[:2]: row[2] for row in TRAIN}
    for user, item, history, *_ in _rows(log[log.split == "train"]):
        assert 0 not in history
        # The place in the sequence is the only order of time that there is.
        places = np.flatnonzero(source[user, item])
        assert history == [source[user, item][place] for place in places]


def test_the_examples_have_the_histories_of_the_data_set(dataset, tmp_path):
    log = _import(dataset)
    shop = dataset.parent / "shop"
    tables = shop / "items.parquet", shop / "impressions.parquet"
    build_examples(*tables, tmp_path / "data")
    for split, rows in log.groupby("split"):
        found = read_impressions(tmp_path / "data", split, "user_id", "history_item_id")
        expected = [
            ((user,), tuple(history))
            for user, history in zip(rows.user_id, rows.history_item_id, strict=True)
        ]
        assert sorted(found) == sorted(expected)
        requests = DataFolder(tmp_path / "data").num_requests(split)
        assert requests == len(set(expected)) < len(rows)


def test_missing_lists_are_empty_histories():
    lists = pa.array([[0, 1], None, [None, 2, 0]], pa.large_list(pa.int32()))
    assert tool.remove_padding(lists).to_pylist() == [[1], [], [2]]
    assert tool.remove_padding(lists.slice(1)).to_pylist() == [[], [2]]
    assert tool.remove_padding(lists.slice(0, 0)).to_pylist() == []


def test_input_errors(dataset):
    output = dataset.parent / "shop"
    log = _log(TRAIN, pa.list_(pa.int64()))
    for name in ("item_seq", "label"):
        pq.write_table(log.drop_columns(name), dataset / "train.parquet")
        with pytest.raises(InputError, match=f"train.parquet: no column {name}"):
            tool.import_microlens(dataset, output)
    half = log.set_column(5, "label", pa.array([0.5] * len(TRAIN)))
    pq.write_table(half, dataset / "train.parquet")
    with pytest.raises(InputError, match="train.parquet"):
        tool.import_microlens(dataset, output)
    (dataset / "train.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match="train.parquet"):
        tool.import_microlens(dataset, output)
    assert not output.exists()


def test_command_line(tmp_path):
    words = (f"--input={tmp_path}", f"--output_dir={tmp_path / 'shop'}")
    result = processes.run(["-m", "tfrecords_tools.import_microlens", *words], cwd=ROOT)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "item_info.parquet" in result.stderr
    assert list(tmp_path.iterdir()) == []
