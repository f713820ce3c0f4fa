"""Apache Beam's pipelines: which runner they have, and how quiet it is."""

import importlib
import logging
import shlex
import sys

from hccm_tf.errors import InputError

# By its name: Beam's default runner first tries to download another one.
IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
WORKER = "hccm_tf.preparation.worker"


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


def make_pipeline(beam_args, processes):
    """An empty pipeline.

    Args:
        beam_args: Beam's options, list of str; none for the in-process runner.
        processes: worker processes of the in-process runner; with 1 it works in this
            process.

    Raises:
        InputError: for an option that Beam does not know.
    """
    beam = import_beam()
    to_options = import_beam(".options.pipeline_options")
    arguments = [f"--runner={IN_PROCESS}", f"--direct_num_workers={processes}"]
    if processes > 1:
        arguments.append("--direct_running_mode=multi_processing")
    arguments += beam_args
    try:
        options = to_options.PipelineOptions(arguments)
        pipeline = beam.Pipeline(_own_runner(options), options)
    except ValueError as error:
        raise InputError(f"options of Beam: {error}") from error
    # Only now, because a runner that has been imported brings options of its own.
    options = to_options.PipelineOptions(arguments)
    everything = options.get_all_options(retain_unknown_options=True)
    unknown = sorted(set(everything) - set(options.get_all_options()))
    if unknown:
        raise InputError(f"options of Beam: it does not know --{', --'.join(unknown)}")
    return pipeline


def _own_runner(options):
    """The in-process runner with quiet worker processes, `None` if others are asked."""
    direct = options.view_as(import_beam(".options.pipeline_options").DirectOptions)
    in_process = options.get_all_options()["runner"] == IN_PROCESS
    if not in_process or direct.direct_running_mode != "multi_processing":
        return None
    # Otherwise the runner would start Beam's own workers.
    direct.direct_running_mode = "in_memory"
    command = f"{shlex.quote(sys.executable)} -m {WORKER}"
    environments = import_beam(".transforms.environments")
    runner = import_beam(".runners.portability.fn_api_runner.fn_runner").FnApiRunner
    return runner(environments.SubprocessSDKEnvironment(command))
