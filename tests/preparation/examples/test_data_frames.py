"""Data folders of data frames: what the scikit-learn estimator fits and predicts."""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.data_frames import FrameFolders
from tests.preparation.examples.logs import make_items, make_log, read_impressions


def _log():
    log = make_log(400, users=4, timestamp=np.arange(400) // 8).drop(columns="split")
    log = log.assign(position=np.arange(400) % 8)
    return log.sample(frac=1, random_state=2)


@pytest.mark.parametrize("named", [False, True])
def test_rows_are_in_the_order_of_the_frame(named):
    log = _log()
    if named:
        # Of two seconds: by the impression, the splits would part some of them.
        log = log.assign(request_id=log.user_id * 100 + (log.timestamp + 1) // 2)
    folders = FrameFolders(make_items(), log)
    schema = DataFolder(folders.training).schema()
    assert schema["position"].candidate
    frame = log[log.timestamp > 30].drop(columns="label")
    data = folders.scoring(frame, schema)
    rows = sorted(
        read_impressions(data, "test", "row", "user_id", "item_id", "timestamp")
    )
    assert [tuple(v for (v,) in row[1:]) for row in rows] == [
        tuple(row)
        for row in frame[["user_id", "item_id", "timestamp"]].itertuples(index=False)
    ]
    assert DataFolder(data).max_candidates > 1


def test_a_request_of_the_log_is_scored_before_its_own_clicks():
    log = _log().assign(label=1)
    log = log.assign(request_id=log.user_id * 100 + (log.timestamp + 1) // 2)
    folders = FrameFolders(make_items(), log)
    schema = DataFolder(folders.training).schema()
    frame = log[log.timestamp > 30]
    data = folders.scoring(frame, schema)
    first = log.groupby("request_id").timestamp.transform("min")
    found = read_impressions(data, "test", "row", "history_item_id")
    for row, (_, history) in zip(frame.index, sorted(found), strict=True):
        before = log[(log.user_id == log.user_id[row]) & (log.timestamp < first[row])]
        assert len(history) == min(len(before), schema.max_history)


def test_a_frame_without_a_column_that_was_fitted():
    """Of text, a float and an integer; nothing stands in for it."""
    text = np.where(np.arange(400) % 3, "phone", "tablet")
    log = _log().assign(dev=text, price=np.arange(400) / 7, unused="a")
    folders = FrameFolders(make_items(), log)
    features = DataFolder(folders.training).schema()
    # As of a schema from which it was taken.
    kept = tuple(f for f in features.features if f.name != "unused")
    schema = dataclasses.replace(features, features=kept)
    frame = log[log.timestamp > 47].drop(columns=["label", "unused"])
    assert folders.scoring(frame.assign(new=1), schema).is_dir()
    for name in ("dev", "price", "position", "user_id", "item_id", "timestamp"):
        other = frame.rename(columns={name: name.title()})
        with pytest.raises(InputError) as error:
            folders.scoring(other, schema)
        assert str(error.value) == (
            f"X: no column {name}. Received columns: {', '.join(other)}"
        )


LOG = make_log(8).drop(columns="split")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (LOG.to_numpy(), r"X: a pandas .*label\. Received: ndarray of shape \(8, 4\)"),
        (LOG.to_dict("list"), "X: a pandas .*Received: dict"),
        (LOG.to_dict("records"), "X: a pandas .*Received: list"),
        (LOG.label, r"X: a pandas .*Received: Series of shape \(8,\)"),
        (pa.Table.from_pandas(LOG), r"X: a pandas .*Received: Table of shape \(8, 4\)"),
        (None, "X: a pandas .*Received: NoneType"),
        (pd.DataFrame(), "X: no column user_id, item_id, timestamp, label"),
        (pd.DataFrame(LOG.to_numpy()), "X: columns are named by text.*Received: 0"),
        (LOG.drop(columns="label"), "X: no column label. Received columns: user_id"),
        (LOG.T, "X: columns are named by text"),
        (pd.concat([LOG, LOG.label], axis=1), "X: .*but once. Received: 'label'"),
        (LOG.set_axis(pd.MultiIndex.from_product([["a"], LOG]), axis=1), "X: columns"),
        (LOG.set_index("user_id"), "X: no column user_id"),
    ],
)
def test_what_is_no_frame_of_impressions(frame, message):
    with pytest.raises(InputError, match=f"^{message}") as error:
        FrameFolders(make_items(), frame)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "shape"),
    [([1, 0], r"\(2,\)"), (1, r"\(\)"), (LOG[["label"]], r"\(8, 1\)")],
)
def test_labels_of_other_rows(labels, shape):
    with pytest.raises(InputError, match=f"^y: .* 8 rows.*: shape {shape}"):
        FrameFolders(make_items(), LOG, labels)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("items.csv", "items: a pandas .*Received: str"),
        (make_items().to_numpy(), r"items: a pandas .*ndarray of shape \(5, 3\)"),
        (make_items().drop(columns="image"), "items: no column image. Received col"),
    ],
)
def test_what_is_no_catalogue(items, message):
    with pytest.raises(InputError, match=f"^{message}"):
        FrameFolders(items, LOG)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"timestamp": "2024-05-01"}, "X: column timestamp: text; pandas.to_datetime"),
        ({"label": 2}, "X: column label, row 1: a label is 0 or 1. Received: 2"),
        ({"user_id": None}, "X: column user_id, row 1: "),
    ],
)
def test_errors_speak_of_the_frame(changes, says):
    with pytest.raises(InputError) as error:
        FrameFolders(make_items(), _log().assign(**changes))
    message = str(error.value)
    assert message.startswith(says) and "\n" not in message
    assert ".parquet" not in message and "max_bad_rows" not in message


def test_an_index_is_no_column():
    items = make_items().set_index("item_id")
    with pytest.raises(InputError, match="^items: no column item_id; it is the index"):
        FrameFolders(items, _log())
