"""Checks a data folder and its feature maps, and describes what is in them."""

import functools
import pathlib

import numpy as np
import pandas as pd

from hccm_tf.data.folder import DataFolder
from hccm_tf.data.parsing import OPTIONAL_OF_CANDIDATES
from hccm_tf.errors import InputError
from hccm_tf.preparation.validation.figures import (
    Figures,
    count_errors,
    missing_labels,
    table,
)
from hccm_tf.preparation.validation.folder import (
    check_catalogue,
    check_feature_maps,
    check_schema_files,
    find_shards,
    read_json,
)
from hccm_tf.preparation.validation.histories import compare_histories
from hccm_tf.preparation.validation.parser import Columns, make_parser
from hccm_tf.preparation.validation.records import AGAIN, Limits, read_shard
from hccm_tf.progress import progress

LEAK = "a leak: its history holds a click of its earliest second or later"
OTHER_CLICKS = "its history is not its user's newest clicks before it"
SUMMARY = {
    "rows": int,
    "skipped": dict,
    "negatives_left_out": int,
    "history_rows": int,
    "ready_made_histories": bool,
    "splits": dict,
    "requests": dict,
    "max_candidates": int,
    "weighted": bool,
    "request_ids": bool,
}


def _errors_of_requests(problems, files):
    """Yields the errors of the requests of some files.

    Args:
        problems: dict, text → bool `[R]`.
        files: list of `(path, number of records)`.
    """
    start = 0
    for path, count in files:
        for problem, bad in problems.items():
            records = np.flatnonzero(bad[start : start + count])
            if records.size:
                record = f"{path}: record {records[0] + 1}"
                yield f"{record}: {problem} ({records.size} such records); {AGAIN}"
        start += count


def _repeated(log, *names):
    """Bool `[I]`: which candidates' columns, or their users', came before."""
    owner = np.repeat(log["user"], log["size"])
    columns = {name: owner if name == "user" else log[name] for name in names}
    return pd.DataFrame(columns).duplicated().to_numpy()


def _check_group(shards, read, splits, compare):
    """Checks shards that hold all requests of their users.

    Args:
        shards: rows of `find_shards`.
        read: function of path and length, see `read_shard`.
        splits: dict, name → `Figures`; added to.
        compare: `compare_histories` as a function of the log, or `None` if the
            histories are not to be compared with the clicks. Where records have errors
            of their own, they never are.

    Returns:
        `(repeated, errors)`: number of impressions whose user, item and second came
        before; list of str.
    """
    log, files, errors = [], [], []
    for shard in shards.itertuples():
        batches, shard_errors = read(shard.path, shard.length)
        errors += shard_errors
        for batch in batches:
            splits[shard.split].add(batch)
            del batch["shares"]
        files.append((shard.path, sum(batch["size"].size for batch in batches)))
        log += batches
    if not log:
        return 0, errors
    log = {name: np.concatenate([batch[name] for batch in log]) for name in log[0]}
    problems = {}
    owner = np.repeat(np.arange(log["size"].size), log["size"])
    problem = "a row of the log that is in another place too"
    problems[problem] = np.bincount(owner, _repeated(log, "row")) > 0
    repeated = 0
    if "timestamp" in log:
        repeated = int(_repeated(log, "user", "item", "timestamp").sum())
        if not errors and compare is not None:
            wrong, leaks = compare(log)
            problems[LEAK], problems[OTHER_CLICKS] = leaks, wrong & ~leaks
    return repeated, [*errors, *_errors_of_requests(problems, files)]


def _describe_log(summary, schema):
    skipped = ", ".join(f"{name} {count}" for name, count in summary["skipped"].items())
    return (
        f"rows of the log: {summary['rows']}; skipped: {skipped}; negatives left out: "
        f"{summary['negatives_left_out']} (negative_keep_rate "
        f"{schema.negative_keep_rate:g})"
    )


def _why_not_compared(summary, columns, complete):
    """Why the folder's clicks do not determine its histories, `None` if they do."""
    if "timestamp" not in columns.spec:
        return "the impressions have no timestamp"
    if summary is None:
        return "summary.json cannot be read"
    if summary["ready_made_histories"]:
        return "the log came with ready-made histories"
    if summary["history_rows"]:
        return f"{summary['history_rows']} rows of split history are not in the folder"
    return None if complete else "files are missing"


def _optional_columns(content):
    found = content["featuresDict"]["features"]
    return [name for name in OPTIONAL_OF_CANDIDATES if name in found]


def _to_summary(content):
    return {name: to(content[name]) for name, to in SUMMARY.items()}


def _check_impressions(data_dir, schema, known, lines, errors):
    """Checks the TFRecords.

    Args:
        data_dir: `pathlib.Path`.
        schema: `Schema`.
        known: see `make_parser`.
        lines: list of str, the report; appended to.
        errors: list of str; appended to.
    """
    folder = DataFolder(data_dir)
    optional = read_json(folder.features_file, _optional_columns, errors) or ()
    columns = Columns(schema, optional)
    summary = read_json(folder.summary_file, _to_summary, errors)
    limits = Limits(schema.max_history)
    if summary:
        limits = Limits(limits.max_history, summary["max_candidates"], summary["rows"])
    shards, complete = find_shards(data_dir, errors)
    why_not = _why_not_compared(summary, columns, complete)
    read = functools.partial(
        read_shard,
        parse=make_parser(schema, columns, known),
        columns=columns,
        limits=limits,
    )
    compare = None
    if why_not is None:
        compare = functools.partial(
            compare_histories,
            max_history=schema.max_history,
            several_seconds=summary["request_ids"],
        )
    splits = {split: Figures() for split in shards.split.unique()}
    repeated = 0
    with progress("checking", int(shards.length.sum()), "record"):
        for _, group in shards.groupby("number"):
            count, group_errors = _check_group(group, read, splits, compare)
            repeated += count
            errors += group_errors
    if splits:
        lines += table(splits)
        lines += missing_labels(splits)
    if "timestamp" in columns.spec:
        lines.append(f"impressions whose user, item and second came before: {repeated}")
    if summary:
        lines.append(_describe_log(summary, schema))
        errors += count_errors(folder.summary_file, summary, splits)
        if summary["weighted"] != ("weight" in columns.spec):
            errors.append(
                f"{folder.summary_file}: weighted is {summary['weighted']}, and "
                f"{folder.features_file} says otherwise; {AGAIN}"
            )
    if why_not:
        lines.append(f"histories cannot be checked for leaks: {why_not}")
    else:
        lines.append("histories were compared with the clicks of undamaged shards")
    if not shards.length[shards.split == "train"].any():
        errors.append(f"{data_dir}: split train is empty; {AGAIN}")


def validate(data_dir, feature_maps=None):
    """Checks a data folder.

    Args:
        data_dir: folder of `tfrecords_tools.build_examples`.
        feature_maps: folder of `tfrecords_tools.extract_feature_maps`, or `None`.

    Returns:
        `(lines, errors)`: lists of str, the report and what is wrong.

    Raises:
        InputError: if a folder does not exist.
    """
    for name, path in (("data_dir", data_dir), ("feature_maps", feature_maps)):
        if path is not None and not pathlib.Path(path).is_dir():
            raise InputError(f"{name}={path}: no such folder on a disk")
    data_dir = pathlib.Path(data_dir)
    lines, errors = [], []
    known = check_catalogue(data_dir, lines, errors)
    if feature_maps is not None:
        images = known.get("image", np.zeros(0, np.int64))
        known |= check_feature_maps(feature_maps, images, lines, errors)
    schema = check_schema_files(data_dir, errors)
    if schema is not None:
        _check_impressions(data_dir, schema, known, lines, errors)
    return lines, [" ".join(error.splitlines()) for error in errors]
