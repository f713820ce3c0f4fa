"""An id of a request is of one user and one split, whatever shards they are in."""

import re

import numpy as np
import pytest

from hccm_tf.errors import InputError
from hccm_tf.preparation.examples import build as tool
from hccm_tf.preparation.examples import request_ids
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.examples.shards import shard_of_users
from tests.preparation.examples.logs import make_items, make_log, read_rows


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """To start others would take longer than all else."""
    monkeypatch.setattr(tool, "SHARDS_FOR_PROCESSES", 99)


def _log(ids):
    """60 impressions of users 1 to 20, three of each, one request a user."""
    log = make_log(60, timestamp=range(60)).assign(user_id=np.arange(60) // 3 + 1)
    log.loc[:, "split"] = ["train"] * 54 + ["validation"] * 3 + ["test"] * 3
    return log.assign(request_id=ids(log.user_id))


def _numbers(users):
    return users * 7 - 70


def _texts(users):
    return "request " + users.astype(str)


@pytest.mark.parametrize("ids", [_numbers, _texts])
@pytest.mark.parametrize("num_shards", [1, 20])
def test_an_id_of_two_users(tmp_path, ids, num_shards, monkeypatch):
    monkeypatch.setattr(request_ids, "SHARDS_OF_A_RANGE", 3)
    log = _log(ids)
    build_examples(make_items(), log, tmp_path / "good", num_shards=num_shards)
    (row,) = np.flatnonzero(log.user_id == 11)[:1]
    shards = shard_of_users(np.array([4, 11]), num_shards)
    assert num_shards == 1 or len(set(shards)) == 2
    log.loc[log.user_id == 11, "request_id"] = log.request_id[log.user_id == 4].iloc[0]
    log.to_parquet(tmp_path / "log.parquet")
    make_items().to_parquet(tmp_path / "items.parquet")
    paths = tmp_path / "items.parquet", tmp_path / "log.parquet"
    received = re.escape(
        repr(log.request_id[row].item() if ids is _numbers else "request 4")
    )
    message = (
        rf"^\S*log.parquet, row {row + 1}: impressions, column request_id: a request "
        rf"of two users, see \S*log.parquet, row 10; .*Received: {received}$"
    )
    with pytest.raises(InputError, match=message):
        build_examples(*paths, tmp_path / "data", num_shards=num_shards)
    assert not (tmp_path / "data").exists()


def test_an_id_of_two_splits(tmp_path):
    log = _log(_numbers)
    log.loc[4, "split"] = "test"
    with pytest.raises(
        InputError, match=r"row 5: .* two splits, see .*row 4; .*: -56$"
    ):
        build_examples(make_items(), log, tmp_path / "data", num_shards=2)


def test_where_rows_are_is_said_by_file(tmp_path):
    log = _log(_texts)
    log.loc[50, "request_id"] = "request 1"
    (tmp_path / "log").mkdir()
    for number, rows in enumerate((log[:20], log[20:45], log[45:])):
        rows.to_csv(tmp_path / "log" / f"{number}.csv", index=False)
    make_items().to_csv(tmp_path / "items.csv", index=False)
    with pytest.raises(InputError, match=r"2.csv, row 6: .*see \S*0.csv, row 1;"):
        paths = tmp_path / "items.csv", tmp_path / "log"
        build_examples(*paths, tmp_path / "data", num_shards=20)


def test_an_id_that_is_missing(tmp_path):
    for ids, value in ((_texts, None), (_texts, ""), (_numbers, np.nan)):
        log = _log(ids)
        log.loc[3, "request_id"] = value
        with pytest.raises(InputError, match="column request_id, row 4: empty"):
            build_examples(make_items(), log, tmp_path / "data")
    summary = build_examples(make_items(), log, tmp_path / "data", max_bad_rows=1)
    assert summary["skipped"]["bad_row"] == 1
    assert (4, 5) in [rows for (rows,) in read_rows(tmp_path / "data", "train", "row")]


def test_the_ends_of_the_keys_are_in_a_range(tmp_path):
    # Every id of 64 bits is in one range, those at its ends too.
    class Job:
        num_shards = 64
        work = tmp_path

    keys = np.array([0, 1, 2**61 - 1, 2**61, 2**63, 2**64 - 1], np.uint64)
    (tmp_path / "request_keys").mkdir()
    np.save(tmp_path / "request_keys" / "00000.npy", keys)
    np.save(tmp_path / "request_keys" / "00001.npy", keys[:0])
    for number in range(request_ids.num_ranges(Job)):
        request_ids.check_across(Job, number)
    for key in keys:
        np.save(tmp_path / "request_keys" / "00001.npy", np.array([key]))
        found = []
        with pytest.MonkeyPatch.context() as m:
            m.setattr(
                request_ids, "_rows_of_one_id", lambda _, keys, f=found: f.extend(keys)
            )
            for number in range(request_ids.num_ranges(Job)):
                request_ids.check_across(Job, number)
        assert found == [key]
