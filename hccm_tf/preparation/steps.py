"""Runs the steps of a data tool.

A tool is a chain of steps that pass files to each other in a folder which every worker
sees. They run in processes of this machine or, where what stands after `--` on a tool's
command line are options such as `--runner=FlinkRunner`, on Apache Beam.
"""

import contextlib
import dataclasses
import functools
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hccm_tf.errors import InputError
from hccm_tf.preparation.beam import run_on_beam
from hccm_tf.progress import advance, progress


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a tool.

    Args:
        function: called with each of the numbers 0 to `count` − 1, in any order and in
            any process. A runner may call it twice for a number, so it writes its files
            under a temporary name.
        count: int.
        work: `(title, total, unit)` as `hccm_tf.progress.progress` takes them, if the
            step tells how far it is.
    """

    function: Callable
    count: int = 1
    work: tuple = ()

    def progress(self):
        """Shows how far it is while the block runs."""
        return progress(*self.work) if self.work else contextlib.nullcontext()


def run_steps(steps, folder, beam_args=(), processes=1):
    """Runs steps one after the other, the numbers of each in parallel.

    Args:
        steps: list of `Step`, picklable.
        folder: `pathlib.Path` that all workers see.
        beam_args: Beam's options, list of str; none for this machine.
        processes: worker processes on this machine; with 1 the steps run in this one.

    Raises:
        InputError: of a step, for an option that Beam does not know, or if a worker
            process is killed.
    """
    if beam_args:
        run_on_beam(steps, folder, beam_args)
    elif processes == 1:
        for step in steps:
            with step.progress():
                for number in range(step.count):
                    step.function(number)
    else:
        _run_in_processes(steps, processes)


def _run_in_processes(steps, processes):
    """Runs steps in processes that are asked through pipes and listen on no port.

    Those of `multiprocessing` would import the user's script once more, and joblib's
    are begun anew when they have grown, as by importing TensorFlow.
    """
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-m", "hccm_tf.preparation.worker"]
    free = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
            # Which closes its pipes, and waits for it.
            free.put(stack.enter_context(worker))
        threads = stack.enter_context(ThreadPoolExecutor(processes))
        for step in steps:
            call = functools.partial(_call, free, step.function)
            with step.progress():
                for _ in threads.map(call, range(step.count)):
                    pass


def _call(free, function, number):
    """Has one of the workers that are free call a step; raises the step's error."""
    worker = free.get()
    try:
        pickle.dump((function, number), worker.stdin)
        worker.stdin.flush()
        # How much of it is done, until there is an answer.
        while isinstance(error := pickle.load(worker.stdout), int):
            advance(error)
    except (EOFError, BrokenPipeError, ValueError, pickle.UnpicklingError) as end:
        # What did not go through the pipe must not be tried again at the end.
        with contextlib.suppress(OSError):
            worker.stdin.close()
        raise InputError(
            "processes: a worker process was killed; if memory ran out, take fewer"
        ) from end
    finally:
        free.put(worker)
    if error is not None:
        raise error
