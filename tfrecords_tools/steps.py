"""Runs the steps of a data tool on Apache Beam.

A tool is a chain of steps that pass files to each other in a folder which every worker
sees; Beam places the work and carries only numbers. The default is Beam's in-process
runner. What stands after `--` on a tool's command line are Beam's own options, such as
`--runner=FlinkRunner`.
"""

import dataclasses
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from hccm_tf.errors import InputError

# By its name: Beam's default runner first tries to download another one.
IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
ERROR = "error.txt"
DISK_IS_FULL = 1 << 20  # bytes left


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a tool.

    Args:
        function: called with each of the numbers 0 to `parts` − 1, in any order and in
            any process. A runner may call it twice for a number, so it writes its files
            under a temporary name.
        parts: int.
    """

    function: Callable
    parts: int = 1


@dataclasses.dataclass(frozen=True)
class _Call:
    """Calls a step; an error that a user can mend reaches the caller as a file.

    Runners turn exceptions of their workers into texts of their own.
    """

    step: Step
    folder: pathlib.Path

    def __call__(self, part):
        try:
            if part < self.step.parts:
                self.step.function(part)
        except InputError as error:
            (self.folder / ERROR).write_text(str(error))
            raise
        return 0, part


def run_steps(steps, folder, beam_args=(), processes=1):
    """Runs steps one after the other, the parts of each in parallel.

    Args:
        steps: list of `Step`, picklable.
        folder: `pathlib.Path` that all workers see.
        beam_args: Beam's options, list of str; none for the in-process runner.
        processes: worker processes of the in-process runner; with 1 the steps run in
            this process.

    Raises:
        InputError: of a step.
    """
    local = [f"--runner={IN_PROCESS}", f"--direct_num_workers={processes}"]
    if processes > 1:
        local.append("--direct_running_mode=multi_processing")
    # Errors are raised here, with the worker's traceback; Beam logs them once more.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    # The only way to tell worker processes so: they get no other options.
    quiet = folder / "beam.json"
    quiet.write_text(json.dumps({"default_sdk_harness_log_level": "CRITICAL"}))
    os.environ["PIPELINE_OPTIONS_FILE"] = str(quiet)
    pipeline = beam.Pipeline(options=PipelineOptions([*local, *beam_args]))
    # The first collection has the most elements: Dask keeps its partitioning.
    most = max(step.parts for step in steps)
    parts = pipeline | beam.Create(range(most))
    for number, step in enumerate(steps):
        if number:
            parts = (
                parts
                | f"wait {number}" >> beam.GroupByKey()
                | f"parts {number}" >> beam.FlatMap(_numbers, step.parts)
                # Not Reshuffle, which Dask leaves out.
                | f"spread {number}" >> beam.GroupByKey()
                | f"part {number}" >> beam.Keys()
            )
        parts |= f"step {number}" >> beam.Map(_Call(step, folder))
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:
        if (folder / ERROR).exists():
            raise InputError((folder / ERROR).read_text()) from error
        if shutil.disk_usage(folder).free < DISK_IS_FULL:
            raise InputError(
                f"{folder.parent}: the disk is full; nothing is left of this run"
            ) from error
        raise
    finally:
        del os.environ["PIPELINE_OPTIONS_FILE"]
        quiet.unlink()


def _numbers(_, parts):
    return [(part, part) for part in range(parts)]
