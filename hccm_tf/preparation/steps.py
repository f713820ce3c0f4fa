"""Runs the steps of a data tool on Apache Beam.

A tool is a chain of steps that pass files to each other in a folder which every worker
sees; Beam places the work and carries only numbers. The default is Beam's in-process
runner. What stands after `--` on a tool's command line are Beam's own options, such as
`--runner=FlinkRunner`.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import queue
import threading
from collections.abc import Callable

from hccm_tf.errors import InputError
from hccm_tf.preparation.beam import import_beam, make_pipeline
from hccm_tf.quiet import quiet_tensorflow

ERROR = "error.txt"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a tool.

    Args:
        function: called with each of the numbers 0 to `count` − 1, in any order and in
            any process. A runner may call it twice for a number, so it writes its files
            under a temporary name.
        count: int.
    """

    function: Callable
    count: int = 1


@dataclasses.dataclass(frozen=True)
class _Call:
    """Calls a step; an error that a user can mend reaches the caller as a file.

    Runners turn exceptions of their workers into texts of their own.
    """

    step: Step
    folder: pathlib.Path

    def __call__(self, number):
        # It may be another process than the command's.
        quiet_tensorflow()
        try:
            if number < self.step.count:
                self.step.function(number)
        except InputError as error:
            (self.folder / ERROR).write_text(str(error))
            raise
        return 0, number


@contextlib.contextmanager
def _quiet_workers(folder):
    """Errors are raised here, with the worker's traceback; Beam logs them once more.

    Worker processes are told so in a file: they get no other options.
    """
    logger, name = logging.getLogger("apache_beam"), "PIPELINE_OPTIONS_FILE"
    level, before = logger.level, os.environ.get(name)
    file = folder / "beam.json"
    file.write_text(json.dumps({"default_sdk_harness_log_level": "CRITICAL"}))
    logger.setLevel(logging.CRITICAL)
    os.environ[name] = str(file)
    try:
        yield
    finally:
        logger.setLevel(level)
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _wait(pipeline):
    """Runs a pipeline; a worker process that dies is an error, not a wait for ever.

    Beam raises that error in the thread that watches the worker.
    """
    ended = queue.SimpleQueue()

    def run():
        try:
            pipeline.run().wait_until_finish()
            ended.put(None)
        except BaseException as error:
            ended.put(error)

    def on_error(arguments):
        if "Worker subprocess exited" in str(arguments.exc_value):
            ended.put(
                InputError(
                    "a worker process was killed; if memory ran out, take fewer with "
                    "Beam's option --direct_num_workers"
                )
            )
        else:
            before(arguments)

    before, threading.excepthook = threading.excepthook, on_error
    try:
        threading.Thread(target=run, daemon=True).start()
        error = ended.get()
    finally:
        threading.excepthook = before
    if error is not None:
        raise error


def run_steps(steps, folder, beam_args=(), processes=1):
    """Runs steps one after the other, the numbers of each in parallel.

    Args:
        steps: list of `Step`, picklable.
        folder: `pathlib.Path` that all workers see.
        beam_args: Beam's options, list of str; none for the in-process runner.
        processes: worker processes of the in-process runner; with 1 the steps run in
            this process.

    Raises:
        InputError: of a step, for an option that Beam does not know, or if a worker
            process is killed.
    """
    beam, pipeline = import_beam(), make_pipeline(beam_args, processes)
    # A folder that is resumed may hold an earlier run's.
    (folder / ERROR).unlink(missing_ok=True)
    # The first collection has the most elements: Dask keeps its partitioning.
    most = max(step.count for step in steps)
    numbers = pipeline | beam.Create(range(most))
    for place, step in enumerate(steps):
        if place:
            numbers = (
                numbers
                | f"wait {place}" >> beam.GroupByKey()
                | f"numbers {place}" >> beam.FlatMap(_numbers, step.count)
                # Not Reshuffle, which Dask leaves out.
                | f"spread {place}" >> beam.GroupByKey()
                | f"number {place}" >> beam.Keys()
            )
        numbers |= f"step {place}" >> beam.Map(_Call(step, folder))
    try:
        with _quiet_workers(folder):
            _wait(pipeline)
    except Exception as error:
        if (folder / ERROR).exists():
            raise InputError((folder / ERROR).read_text()) from error
        raise


def _numbers(_, count):
    return [(number, number) for number in range(count)]
