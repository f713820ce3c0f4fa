r"""Runs a program as a cluster of processes on this machine, for trying things out.

    python -m hccm_tf.training.local_cluster --workers=2 --parameter_servers=1 -- \
        -m train_main --strategy=parameter_server --flagfile=...

Without parameter servers the workers are those of `multi_worker_mirrored`. Each process
gets its `TF_CONFIG`; what the first one prints is shown, what the others print is in
`--output_dir`. When the chief, or the last worker, has ended, the others are ended.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys

from absl import flags

from hccm_tf import commands
from hccm_tf.errors import InputError

FLAGS = flags.FLAGS

# Linux gives connections those from 32768 on.
PORTS = range(15000, 32000)


def tasks(workers, parameter_servers):
    """The processes of a cluster, the first one first.

    Returns:
        list of `(name, TF_CONFIG)`, the second as JSON, with free ports.
    """
    counts = {"worker": workers}
    if parameter_servers:
        counts = {"chief": 1, "worker": workers, "ps": parameter_servers}
    ports = iter(_free_ports(sum(counts.values())))
    cluster = {
        kind: [f"127.0.0.1:{next(ports)}" for _ in range(count)]
        for kind, count in counts.items()
    }
    return [
        (
            f"{kind}-{index}",
            json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}),
        )
        for kind, addresses in cluster.items()
        for index in range(len(addresses))
    ]


def start(command, config, log=None):
    """Starts one process of a cluster.

    Args:
        command: list of str, what Python runs.
        config: `TF_CONFIG`.
        log: path of what it prints; `None` for this process's own output.

    Returns:
        `subprocess.Popen`.
    """
    environment = {**os.environ, "TF_CONFIG": config}
    command = [sys.executable, *command]
    if log is None:
        return subprocess.Popen(command, env=environment)
    with open(log, "ab") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def run(command, workers, parameter_servers, output_dir):
    """Runs a cluster until its chief, or all its workers, have ended.

    When this process gets SIGTERM, so do they.

    Returns:
        Exit code of the first process that did not end well, else 0.
    """
    output_dir = pathlib.Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    processes = {}
    try:
        for name, config in tasks(workers, parameter_servers):
            log = output_dir / f"{name}.txt" if processes else None
            processes[name] = start(command, config, log)
        awaited = ["chief-0"] if parameter_servers else list(processes)
        codes = [processes[name].wait() for name in awaited]
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
    return next((code for code in codes if code), 0)


def _free_ports(count):
    """Ports on which nothing listens.

    Not of those that the system gives to connections: until a process listens on its
    port, or while it is down, such a port may go to a connection, even to one that
    asks for this very port.
    """
    ports = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if len(ports) == count:
            break
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            ports.append(port)
    return ports


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_integer("workers", 2, "The number of workers.", lower_bound=1)
    flags.DEFINE_integer(
        "parameter_servers",
        0,
        "The number of parameter servers. By default the workers do without.",
        lower_bound=0,
    )
    flags.DEFINE_string(
        "output_dir",
        "cluster_logs",
        "The folder of what all processes but the first print.",
    )


def main(words):
    """Runs the command line."""
    if not words:
        raise InputError("what to run stands after --")
    code = run(words, FLAGS.workers, FLAGS.parameter_servers, FLAGS.output_dir)
    sys.exit(code)


if __name__ == "__main__":
    commands.run(main, define_flags, words="--")
