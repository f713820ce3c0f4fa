"""The whole of --compare: search, runs over seeds, report."""

import pathlib

import numpy as np
import tensorflow as tf

from hccm_tf import finite_json
from hccm_tf.atomic import check_can_make, write_text
from hccm_tf.comparison.arms import read_arms
from hccm_tf.comparison.markdown import markdown
from hccm_tf.comparison.page import render
from hccm_tf.comparison.results import collect
from hccm_tf.comparison.runs import read_predictions
from hccm_tf.comparison.search import (
    check_can_choose,
    check_same_budget,
    draw_settings,
)
from hccm_tf.comparison.slices import read_slices
from hccm_tf.comparison.third import find_third
from hccm_tf.comparison.train_arm import num_runs, train_arm
from hccm_tf.data.labels import what_lacks
from hccm_tf.errors import InputError, errors_begin_with, with_flag
from hccm_tf.flags.groups import ComparisonOptions
from hccm_tf.flags.read import options_of
from hccm_tf.oracle import read_oracle
from hccm_tf.progress import progress
from hccm_tf.training.check import check
from hccm_tf.trees.fit import check_trees


def compare(flag_values, typed_names, train):
    """Trains the arms of --compare over seeds and writes the comparison.

    What is there already is not trained again. Each arm is checked before the first
    starts.

    Args:
        flag_values: `absl.flags.FlagValues` of `train_main.py`, parsed.
        typed_names: names of the flags on the command line.
        train: function of a list of flags and the run's folder, in which it leaves what
            `train_main.py` does; see `hccm_tf.comparison.runs.subprocess_trainer`.

    Returns:
        dict, the content of `comparison.json`.

    Raises:
        InputError: names the flag, the arm or the runs that failed.
    """
    # The runs are processes of their own, to which this one leaves the GPUs.
    tf.config.set_visible_devices([], "GPU")
    plots = _plots()
    options = options_of(ComparisonOptions, flag_values)
    arms = read_arms(flag_values, typed_names)
    first = arms[0].configuration
    if options.search_trials:
        check_same_budget(arms)
        check_can_choose(first.data_dir)
    folder = pathlib.Path(first.run_dir)
    with errors_begin_with("run_dir="):
        check_can_make(folder / "comparison.json")
    oracle = options.oracle and read_oracle(options.oracle)
    test, slices = read_slices(first.data_dir)
    lacks = what_lacks("test", set(test.label[test.weight > 0]))
    if lacks:
        raise InputError(f"--compare: {lacks}; build DATA with a longer test split")
    for arm in arms:
        _check(arm, flag_values)
    settings = draw_settings(options.search_trials)
    seeds = [first.settings.seed + place for place in range(options.seeds)]
    total, third = sum(num_runs(arm, settings, seeds) for arm in arms), None
    if total > len(arms) * len(seeds):
        third = find_third(first.data_dir, folder)
    print(f"{total} runs in {folder / 'runs'}", flush=True)
    with progress("training", total, "run"):
        trained = [
            train_arm(folder, arm, settings, seeds, third, train) for arm in arms
        ]
    _raise_failures(trained)
    scores = [[read_predictions(d, test) for d in arm.run_dirs] for arm in trained]
    result = collect(trained, seeds, np.array(scores), test, slices, oracle)
    write_report(result, plots.draw(result, [arm.run_dirs for arm in trained]), folder)
    return result


def _check(arm, flag_names):
    try:
        (check_trees if arm.is_trees else check)(arm.configuration)
    except InputError as error:
        message = with_flag(str(error), flag_names)
        raise InputError(f"--compare: arm {arm.label!r}: {message}") from error


def _plots():
    try:
        from hccm_tf.comparison import plots
    except ImportError as error:
        raise InputError(
            f"--compare draws with matplotlib ({error}): install the extra with "
            "pip install 'hccm_tf[compare]'"
        ) from error
    return plots


def write_report(result, plots, folder):
    """Writes the report for people, to paste, and for programs, and prints it."""
    text, page = markdown(result), folder / "comparison.html"
    write_text(folder / "comparison.json", finite_json.to_text(result, indent=2) + "\n")
    write_text(folder / "comparison.md", text)
    write_text(page, render(result, plots))
    print(text)
    print(f"wrote {page}")


def _raise_failures(trained):
    failed = [
        str(folder)
        for arm in trained
        for folder, metrics in zip(arm.run_dirs, arm.metrics, strict=True)
        if metrics is None
    ]
    failed += [f"all trials of {a.arm.label}" for a in trained if a.chosen is None]
    if failed:
        raise InputError(
            f"no comparison, because runs failed: {', '.join(failed)}. The others are "
            "kept: mend the cause and give the same command again"
        )
