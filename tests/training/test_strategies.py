import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from hccm_tf.errors import InputError
from hccm_tf.training.local_cluster import tasks
from hccm_tf.training.strategies import make_strategy
from tests.training.cluster import PATIENCE

ONE = ["127.0.0.1:1"]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("multi_worker_mirrored", None),
        ("multi_worker_mirrored", "{"),
        ("multi_worker_mirrored", {"cluster": {"worker": ONE}}),
        ("parameter_server", {"cluster": {"worker": ONE, "ps": ONE}, "task": {}}),
        # Workers in step have no chief, and numbers begin with 0.
        (
            "multi_worker_mirrored",
            {
                "cluster": {"chief": ONE, "worker": ONE},
                "task": {"type": "chief", "index": 0},
            },
        ),
        (
            "multi_worker_mirrored",
            {"cluster": {"worker": ONE}, "task": {"type": "worker", "index": 1}},
        ),
    ],
)
def test_what_a_cluster_lacks_is_named(monkeypatch, name, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match=f"^strategy={name}: it needs .*TF_CONFIG"):
        make_strategy(name)


def test_tasks_of_a_local_cluster():
    names, configs = zip(*tasks(2, 1), strict=True)
    assert names == ("chief-0", "worker-0", "worker-1", "ps-0")
    configs = [json.loads(config) for config in configs]
    assert len({json.dumps(config["cluster"]) for config in configs}) == 1
    addresses = sum(configs[0]["cluster"].values(), [])
    assert len(set(addresses)) == 4
    # Not of those that a connection may be given while its process is down.
    path = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest, highest = map(int, path.read_text().split())
    for address in addresses:
        assert not lowest <= int(address.rpartition(":")[2]) <= highest
    assert configs[2]["task"] == {"type": "worker", "index": 1}
    assert [name for name, _ in tasks(2, 0)] == ["worker-0", "worker-1"]


def test_a_local_cluster_ends_its_processes_when_it_is_ended(tmp_path):
    wait = "import os, pathlib, signal; pathlib.Path(str(os.getpid())).touch(); "
    command = "-m hccm_tf.training.local_cluster --workers=2 --output_dir=logs --"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    cluster = subprocess.Popen(
        [sys.executable, *command.split(), "-c", wait + "signal.pause()"],
        cwd=tmp_path,
        env=environment,
    )
    end = time.monotonic() + PATIENCE
    try:
        while len(found := list(tmp_path.glob("[0-9]*"))) < 2:
            assert cluster.poll() is None and time.monotonic() < end
            time.sleep(0.1)
    finally:
        cluster.terminate()
    assert cluster.wait(PATIENCE) == 128 + signal.SIGTERM
    for path in found:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)
