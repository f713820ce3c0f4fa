"""Data folders of data frames: what the scikit-learn estimator fits and predicts."""

import numpy as np
import pytest

from hccm_tf.data.folder import DataFolder
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
