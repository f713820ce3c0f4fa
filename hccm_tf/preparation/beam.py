"""Runs the steps of a data tool on Apache Beam, for clusters."""

import contextlib
import dataclasses
import importlib
import logging
import pathlib

from hccm_tf.atomic import write_text
from hccm_tf.errors import InputError
from hccm_tf.quiet import quiet_tensorflow

# By its name: Beam's default runner first tries to download another one.
IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
ERROR = "error.txt"


def import_beam(name=""):
    """A module of Beam, without what it says of clients for BigQuery.

    Beam is imported late, because it takes seconds and most of a tool does without.

    Args:
        name: of the module within the package, with a dot before it.
    """

    def matters(record):
        return not record.getMessage().startswith("apitools not found")

    # A warning of a root logger without a handler gives it one for good.
    root, handler = logging.getLogger(), logging.NullHandler()
    beam = logging.getLogger("apache_beam")
    level = beam.level
    root.addFilter(matters)
    root.addHandler(handler)
    beam.setLevel(logging.WARNING)
    try:
        return importlib.import_module(f"apache_beam{name}")
    finally:
        beam.setLevel(level)
        root.removeHandler(handler)
        root.removeFilter(matters)


def run_on_beam(steps, folder, beam_args):
    """Runs steps on Beam, which places the work and carries only numbers.

    Args:
        steps: list of `hccm_tf.preparation.steps.Step`.
        folder: `pathlib.Path` that all workers see.
        beam_args: Beam's options, list of str.

    Raises:
        InputError: of a step, or for an option that Beam does not know.
    """
    beam, pipeline = import_beam(), _make_pipeline(beam_args)
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
        with _errors_said_once():
            pipeline.run().wait_until_finish()
    except Exception as error:
        if (folder / ERROR).exists():
            raise InputError((folder / ERROR).read_text()) from error
        raise


def _numbers(_, count):
    return [(number, number) for number in range(count)]


@dataclasses.dataclass(frozen=True)
class _Call:
    """Calls a step; an error that a user can mend reaches the caller as a file.

    Runners turn exceptions of their workers into texts of their own.
    """

    step: object
    folder: pathlib.Path

    def __call__(self, number):
        # It may be another process than the command's.
        quiet_tensorflow()
        try:
            if number < self.step.count:
                self.step.function(number)
        except InputError as error:
            # Where the disk has no room for it, the caller finds that out.
            with contextlib.suppress(InputError, OSError):
                write_text(self.folder / ERROR, str(error))
            raise
        return 0, number


@contextlib.contextmanager
def _errors_said_once():
    """Errors are raised here, with the worker's traceback; Beam logs them once more."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _make_pipeline(beam_args):
    """An empty pipeline; `InputError` for an option that Beam does not know."""
    beam = import_beam()
    to_options = import_beam(".options.pipeline_options")
    arguments = [f"--runner={IN_PROCESS}", *beam_args]
    try:
        options = to_options.PipelineOptions(arguments)
        runner = options.view_as(to_options.StandardOptions).runner
        if "prism" in runner.lower():
            raise InputError(
                f"options of Beam: --runner={runner} downloads a program and runs it; "
                "leave it out to work on this machine, or name a cluster's runner"
            )
        pipeline = beam.Pipeline(options=options)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"options of Beam: {error}") from error
    # Only now, because a runner that has been imported brings options of its own.
    options = to_options.PipelineOptions(arguments)
    everything = options.get_all_options(retain_unknown_options=True)
    unknown = sorted(set(everything) - set(options.get_all_options()))
    if unknown:
        raise InputError(f"options of Beam: it does not know --{', --'.join(unknown)}")
    return pipeline
