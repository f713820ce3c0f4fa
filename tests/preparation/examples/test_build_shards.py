"""`build_examples` in shards, in processes, on a cluster, and interrupted."""

import collections
import errno
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hccm_tf.atomic import new_folder
from hccm_tf.data.dataset import Batches
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.examples.shards import shard_of_users
from hccm_tf.preparation.steps import Step, run_steps
from hccm_tf.quiet import LEVEL
from tests import processes
from tests.preparation.examples.logs import (
    make_items,
    make_log,
    read_examples,
    read_impressions,
    read_rows,
)
from tests.preparation.failing import (
    die,
    fail,
    fail_if_anyone_listens,
    fail_otherwise,
)
from tests.preparation.job_server import job_server
from tests.reference import histories

SPLITS = ("train", "validation", "test")
IN_PROCESS = ["--direct_num_workers=1"]
# Few users and seconds, so that ties and long histories are common.
EVENT = st.tuples(
    st.integers(-2, 2), st.integers(1, 5), st.integers(0, 8), st.integers(0, 1)
)


def _log():
    rng = np.random.default_rng(3)
    log = make_log(600, users=40, timestamp=rng.integers(0, 100, 600), hour=range(600))
    return log.assign(split=rng.choice([*SPLITS, "history"], 600))


def _portable(address):
    endpoint = f"--job_endpoint={address}"
    return ["--runner=PortableRunner", endpoint, "--environment_type=LOOPBACK"]


def _build(tables, output, num_shards=3, beam_args=()):
    paths = tables / "items.parquet", tables / "log.parquet"
    build_examples(*paths, output, num_shards=num_shards, beam_args=beam_args)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Paths of a catalogue and a log, and the their data folder in one shard."""
    folder = tmp_path_factory.mktemp("tables")
    make_items().to_parquet(folder / "items.parquet")
    _log().to_parquet(folder / "log.parquet")
    _build(folder, folder / "data", num_shards=1)
    return folder


@pytest.fixture(scope="module")
def data(tables):
    """Their data folder in three shards, by Beam in this process; nobody changes it."""
    _build(tables, tables / "3", beam_args=IN_PROCESS)
    return tables / "3"


def _same_files(one, two):
    names = sorted(str(p.relative_to(one)) for p in one.rglob("*"))
    assert names == sorted(str(p.relative_to(two)) for p in two.rglob("*"))
    for name in names:
        if (one / name).is_file():
            assert (one / name).read_bytes() == (two / name).read_bytes(), name


@settings(max_examples=25, deadline=None)
@given(st.lists(EVENT, min_size=4, max_size=40), st.integers(1, 4), st.integers(1, 3))
def test_histories_equal_brute_force(tmp_path_factory, events, max_history, num_shards):
    folder = tmp_path_factory.mktemp("property")
    log = make_log(len(events)).assign(hour=range(len(events)), split="train")
    log[["user_id", "item_id", "timestamp", "label"]] = events
    build_examples(
        make_items(),
        log,
        folder / "data",
        max_history=max_history,
        splits=("train",),
        num_shards=num_shards,
    )
    names = ("timestamp", "user_id", "item_id", "label", "history_item_id")
    found = collections.Counter(read_impressions(folder / "data", "train", *names))
    items = log.item_id.to_numpy()
    expected = collections.Counter(
        ((row.timestamp,), (row.user_id,), (row.item_id,), (row.label,), history)
        for row, history in zip(
            log.itertuples(),
            [tuple(items[history]) for history in histories(log, max_history)],
            strict=True,
        )
    )
    assert found == expected
    shutil.rmtree(folder)


def test_shards_hold_the_same_examples(tables, data):
    names = sorted(read_examples(tables / "data", "test")[0])
    for split in SPLITS:
        expected = read_rows(tables / "data", split, *names)
        found = read_rows(data, split, *names)
        assert found != expected and sorted(found) == sorted(expected)
    for name in ("schema.json", "catalogue.parquet", "summary.json"):
        assert (tables / "data" / name).read_bytes() == (data / name).read_bytes()


def test_a_user_is_in_the_shards_of_one_number(data):
    numbers = collections.defaultdict(set)
    for split in SPLITS:
        for shard in range(3):
            only = [str(data / f"impressions-{split}.tfrecord-{shard:05d}-of-00003")]
            for (user,) in read_rows(data, split, "user_id", files=only):
                numbers[user].add(shard)
    assert len(numbers) == 40 and all(len(found) == 1 for found in numbers.values())
    assert set.union(*numbers.values()) == {0, 1, 2}


def test_more_shards_than_users(tmp_path):
    log = make_log(40, users=1)
    summary = build_examples(make_items(), log, tmp_path / "data", num_shards=3)
    assert summary["splits"] == {"train": 36, "validation": 2, "test": 2}
    assert len(read_impressions(tmp_path / "data", "train", "row")) == 36


# The command, with a log that is large to it, on a machine that may be slow.
IN_PROCESSES = """
from hccm_tf import progress
from hccm_tf.preparation.examples import build
progress.LINE_SECONDS = 10**6
build.SHARDS_FOR_PROCESSES, build.SHARD_ROWS = 2, 250
from tfrecords_tools.build_examples import define_flags, main
from hccm_tf.commands import run
run(main, define_flags, words="--")
"""


def test_processes_write_the_same_bytes_and_say_nothing(tables, data, tmp_path):
    """Not even of the libraries that they start."""
    result = subprocess.run(
        [
            *(sys.executable, "-c", IN_PROCESSES),
            f"--items={tables / 'items.parquet'}",
            f"--impressions={tables / 'log.parquet'}",
            f"--output_dir={tmp_path / 'processes'}",
        ],
        capture_output=True,
        text=True,
        env={n: v for n, v in os.environ.items() if n != LEVEL}
        | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (result.returncode, result.stderr) == (0, "")
    _same_files(data, tmp_path / "processes")


def test_dask_writes_the_same_bytes(tables, data, tmp_path):
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    processes.server()
    # Its workers are processes, and have imported TensorFlow.
    forked = {"distributed.worker.multiprocessing-method": "forkserver"}
    with (
        dask.config.set(forked),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
    ):
        _build(
            tables,
            tmp_path / "dask",
            beam_args=[
                "--runner=apache_beam.runners.dask.dask_runner.DaskRunner",
                f"--dask_client_address={cluster.scheduler_address}",
                "--dask_partition_size=1",
            ],
        )
        distributed.default_client().close()
    _same_files(data, tmp_path / "dask")


def test_a_job_server_writes_the_same_bytes(tables, data, tmp_path):
    with job_server(tmp_path) as address:
        _build(tables, tmp_path / "portable", beam_args=_portable(address))
    _same_files(data, tmp_path / "portable")


def test_an_input_error_comes_back_from_a_job_server(tmp_path):
    with job_server(tmp_path) as address:
        with pytest.raises(InputError, match="^log.csv: row 3$"):
            run_steps([Step(fail, 3)], tmp_path, _portable(address))


@pytest.mark.parametrize("count", [1, 2])
def test_an_input_error_of_a_worker_is_the_callers(tmp_path, count):
    with pytest.raises(InputError, match="^log.csv: row 3$"):
        run_steps([Step(fail, 3)], tmp_path, processes=count)


def test_a_worker_that_is_killed_ends_the_run(tmp_path):
    with pytest.raises(InputError, match="a worker process was killed"):
        run_steps([Step(die, 9)], tmp_path, processes=2)


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="no /proc")
def test_nobody_outside_reaches_workers(tmp_path):
    run_steps([Step(fail_if_anyone_listens, 2)], tmp_path, processes=2)
    with socket.create_server(("127.0.0.1", 0)):
        with pytest.raises(InputError, match="listens on 0100007F"):
            run_steps([Step(fail_if_anyone_listens)], tmp_path)


@pytest.mark.parametrize("count", [1, 2])
def test_another_error_of_a_worker_keeps_its_text(tmp_path, count):
    with pytest.raises(Exception, match="no input error"):
        run_steps([Step(fail_otherwise, 2)], tmp_path, processes=count)


def test_an_earlier_error_is_not_reported_again(tmp_path):
    with pytest.raises(InputError, match="^log.csv: row 3$"):
        run_steps([Step(fail, 3)], tmp_path, IN_PROCESS)
    with pytest.raises(Exception, match="no input error"):
        run_steps([Step(fail_otherwise)], tmp_path, IN_PROCESS)


def test_an_error_for_which_the_disk_has_no_room(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    with pytest.raises(InputError, match="^log.csv: row 3"):
        with new_folder(tmp_path / "data") as folder:
            run_steps([Step(fail, 3)], folder, IN_PROCESS)


@pytest.mark.parametrize(
    "option", ["--runer=Flink", "--runner=Nonsense", "--runner=PrismRunner"]
)
def test_options_that_are_refused(tmp_path, option):
    with pytest.raises(InputError, match="options of Beam: .*(runer|Nonsense|Prism)"):
        run_steps([Step(fail)], tmp_path, [option])


def test_killed_at_twenty_moments(tables, data, tmp_path):
    output, moments = tmp_path / "data", np.random.default_rng(0)
    context = processes.server()
    killed = 0
    while killed < 20:
        process = context.Process(target=_build, args=(tables, output))
        process.start()
        files = moments.integers(1, 60)
        while process.is_alive() and not output.exists():
            incomplete = tmp_path.glob("data.incomplete-*/**/*")
            try:
                if len(list(incomplete)) >= files:
                    os.kill(process.pid, signal.SIGKILL)
                    break
            except FileNotFoundError:
                continue
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if output.exists():
            _same_files(output, data)
            shutil.rmtree(output)
    _build(tables, output)
    _same_files(output, data)
    assert list(tmp_path.iterdir()) == [output]


def test_a_disk_that_fills(tables, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        with pytest.raises(InputError, match="disk.*is full"):
            _build(tables, disk / "data")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_the_summary_counts(tables):
    summary = json.loads((tables / "data" / "summary.json").read_text())
    log = _log()
    assert summary["splits"] == {s: int((log.split == s).sum()) for s in SPLITS}
    assert summary["history_rows"] == (log.split == "history").sum()
    assert summary["rows"] == 600 and summary["skipped"]["bad_row"] == 0


def test_a_training_batch_mixes_the_shards(data):
    dataset = Batches(data, Schema.load(data), 30).dataset("train", epoch=0)
    users = next(iter(dataset))[3]["user_key"].numpy()
    assert set(shard_of_users(users, 3)) == {0, 1, 2}
    everything = [
        np.repeat(keys["user_key"], inputs["candidate_mask"].numpy().sum(axis=1))
        for inputs, _, _, keys in dataset
    ]
    log = _log()
    expected = sorted(log.user_id[log.split == "train"])
    assert sorted(np.concatenate(everything)) == expected
