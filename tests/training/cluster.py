"""Clusters of real processes for tests, on 127.0.0.1."""

import contextlib
import ctypes
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

from hccm_tf.training.local_cluster import tasks
from tests.processes import Process, Script

TRAIN_MAIN = pathlib.Path(__file__).parents[2] / "train_main.py"
PATIENCE = 600  # seconds after which a test gives up
IN_OPEN = 0x20  # of <sys/inotify.h>


class Cluster:
    """Processes by name, such as `worker-1`; all are ended at the end of a `with`.

    Args:
        folder: for what they print, and for the folders that they are started in.
        workers: int.
        parameter_servers: int, 0 for `multi_worker_mirrored`.
        command: list of what Python runs; more may come with `start`.
    """

    def __init__(self, folder, workers, parameter_servers, command):
        self.folder, self.command = folder, [str(word) for word in command]
        self.configs = dict(tasks(workers, parameter_servers))
        self.processes = {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes.values():
            process.kill()
            process.wait()

    def start(self, *names, more=()):
        """Starts processes, all by default, each in a folder of its own."""
        for name in names or self.configs:
            log = self.folder / f"{name}.txt"
            self.processes[name] = Process(
                [*self.command, *more],
                log,
                log,
                env={**os.environ, "TF_CONFIG": self.configs[name]},
                cwd=self.folder_of(name),
            )

    def folder_of(self, name):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def signal(self, name, number=signal.SIGKILL):
        self.processes[name].send_signal(number)
        if number == signal.SIGKILL:
            self.processes[name].wait()

    def wait(self, name):
        """The exit code of a process."""
        return self.processes[name].wait(PATIENCE)

    def text(self, name):
        return (self.folder / f"{name}.txt").read_text(errors="replace")

    def maps(self, name):
        """What is mapped into a process's memory."""
        return pathlib.Path(f"/proc/{self.processes[name].pid}/maps").read_text()

    def wait_until(self, condition):
        """Waits for a condition while no process has ended."""
        end = time.monotonic() + PATIENCE
        while not condition():
            for name, process in self.processes.items():
                killed = process.returncode == -signal.SIGKILL
                assert killed or process.poll() is None, self.text(name)[-3000:]
            assert time.monotonic() < end
            time.sleep(0.1)


@contextlib.contextmanager
def openings(path):
    """Yields a function: whether any process has opened a file since.

    Linux tells (inotify, man 7); a look at who has it mapped would miss most moments.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init()
    try:
        if libc.inotify_add_watch(events, os.fsencode(path), IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), f"no watch of {path}")
        yield lambda: bool(select.select([events], [], [], 0)[0])
    finally:
        os.close(events)


def newest_checkpoint(run_dir):
    """Number of the newest checkpoint, 0 if there is none, and the epoch it begins."""
    paths = pathlib.Path(run_dir).glob("checkpoints/*/state.json")
    paths = [path for path in paths if path.parent.name.isdigit()]
    for path in sorted(paths, reverse=True):
        try:
            state = json.loads(path.read_text())
            return int(path.parent.name), state["progress"]["epoch"]
        except FileNotFoundError:
            continue  # a newer one has just taken its place
    return 0, 0


def run_script(script, *arguments, config=None, forked=True):
    """Starts a Python script.

    Args:
        script: its text.
        *arguments: of its command line.
        config: `TF_CONFIG`, if any.
        forked: see `tests.processes`; otherwise `python` starts it, and it goes through
            a set in an order of its own.
    """
    environment, words = {**os.environ}, ["-c", script, *map(str, arguments)]
    if config is not None:
        environment["TF_CONFIG"] = config
    if forked:
        return Script(words, env=environment)
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, *words], env=environment, text=True, **pipes
    )
