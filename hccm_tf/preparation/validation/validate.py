"""Checks a data folder and its feature maps, and describes what is in them."""

import collections
import functools
import pathlib

import numpy as np
import pandas as pd
from etils import epy

from hccm_tf.data.folder import DataFolder
from hccm_tf.data.parsing import parse_spec
from hccm_tf.errors import InputError
from hccm_tf.preparation.validation.folder import (
    check_catalogue,
    check_feature_maps,
    check_schema_files,
    find_shards,
    read_json,
)
from hccm_tf.preparation.validation.histories import compare_histories
from hccm_tf.preparation.validation.records import make_parser, read_shard

with epy.lazy_imports():
    import tensorflow as tf

SUMMARY = {
    "rows": int,
    "skipped": dict,
    "negatives_left_out": int,
    "history_rows": int,
    "ready_made_histories": bool,
    "splits": dict,
}


def _history_errors(log, files, max_history):
    """Yields the errors of the histories of `files`: `(path, number of records)`."""
    wrong, leaks = compare_histories(log, max_history)
    start = 0
    for path, count in files:
        for bad, problem in (
            (leaks, "a leak: its history holds a click of its own second or later"),
            (wrong & ~leaks, "its history is not its user's newest clicks before it"),
        ):
            rows = np.flatnonzero(bad[start : start + count])
            if rows.size:
                record = f"{path}: record {rows[0] + 1}"
                yield f"{record}: {problem} ({rows.size} such records)"
        start += count


def _check_group(shards, read, splits, max_history):
    """Checks shards that hold all impressions of their users.

    Args:
        shards: rows of `find_shards`.
        read: function of path and length, see `read_shard`.
        splits: see `_table`; added to.
        max_history: int, or `None` if the histories are not to be compared with the
            clicks. Where records have errors of their own, they never are.

    Returns:
        `(repeated, errors)`: number of impressions whose user, item and second came
        before; list of str.
    """
    log, files, errors = [], [], []
    for shard in shards.itertuples():
        batches, shard_errors = read(shard.path, shard.length)
        errors += shard_errors
        shares, lengths = splits[shard.split]
        for batch in batches:
            shares.update(batch.pop("shares"))
            values, counts = np.unique(batch["length"], return_counts=True)
            lengths.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        files.append((shard.path, sum(batch["label"].size for batch in batches)))
        log += batches
    if not log or "time" not in log[0]:
        return 0, errors
    log = {name: np.concatenate([batch[name] for batch in log]) for name in log[0]}
    moments = pd.DataFrame({name: log[name] for name in ("user", "item", "time")})
    repeated = int(moments.duplicated().sum())
    if errors or max_history is None:
        return repeated, errors
    return repeated, [*_history_errors(log, files, max_history)]


def _table(splits):
    """Lines that describe the splits.

    Args:
        splits: name → `(shares, lengths)`, `Counter`s of `_shares` and of the lengths
            of histories.
    """
    columns = {}
    for split, (shares, lengths) in splits.items():
        count = lengths.total()
        column = {"impressions": f"{count}"}
        if count:
            values = np.array(sorted(lengths))
            ends = np.cumsum([lengths[value] for value in values])
            middle = np.searchsorted(ends, [(count - 1) // 2, count // 2], "right")
            mean = sum(value * n for value, n in lengths.items()) / count
            column["history length, mean"] = f"{mean:.2f}"
            column["history length, median"] = f"{values[middle].mean():g}"
            column["history length, max"] = f"{values[-1]}"
        column |= {name: f"{n / count:.2%}" for name, n in shares.items()}
        columns[split] = column
    return pd.DataFrame(columns).fillna("").to_string().splitlines()


def _describe_log(summary, schema):
    skipped = ", ".join(f"{name} {count}" for name, count in summary["skipped"].items())
    return (
        f"rows of the log: {summary['rows']}; skipped: {skipped}; negatives left out: "
        f"{summary['negatives_left_out']} (negative_keep_rate "
        f"{schema.negative_keep_rate:g})"
    )


def _why_not_compared(summary, has_times, complete):
    """Why the folder's clicks do not determine its histories, `None` if they do."""
    if not has_times:
        return "the impressions have no timestamp"
    if summary is None:
        return "summary.json cannot be read"
    if summary["ready_made_histories"]:
        return "the log came with ready-made histories"
    if summary["history_rows"]:
        return f"{summary['history_rows']} rows of split history are not in the folder"
    return None if complete else "files are missing"


def _has_timestamp(features):
    return "timestamp" in features["featuresDict"]["features"]


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
    has_times = read_json(folder.features_file, _has_timestamp, errors)
    spec = parse_spec(schema)
    if has_times:
        spec["timestamp"] = tf.io.FixedLenFeature([], tf.int64)
    summary = read_json(folder.summary_file, _to_summary, errors)
    shards, complete = find_shards(data_dir, errors)
    why_not = _why_not_compared(summary, has_times, complete)
    read = functools.partial(
        read_shard,
        parse=make_parser(schema, spec, known),
        spec=spec,
        max_history=schema.max_history,
    )
    splits = {
        split: (collections.Counter(), collections.Counter())
        for split in shards.split.unique()
    }
    repeated = 0
    for _, group in shards.groupby("number"):
        count, group_errors = _check_group(
            group, read, splits, None if why_not else schema.max_history
        )
        repeated += count
        errors += group_errors
    if splits:
        lines += _table(splits)
    if has_times:
        lines.append(f"impressions whose user, item and second came before: {repeated}")
    if summary:
        lines.append(_describe_log(summary, schema))
        errors += _count_errors(folder.summary_file, summary, splits)
    if why_not:
        lines.append(f"histories cannot be checked for leaks: {why_not}")
    else:
        lines.append("histories were compared with the clicks of undamaged shards")
    if not shards.length[shards.split == "train"].any():
        errors.append(f"{data_dir}: split train is empty; build the examples again")


def _count_errors(summary_file, summary, splits):
    """Yields the splits that do not have as many impressions as the summary says."""
    counts = {split: lengths.total() for split, (_, lengths) in splits.items()}
    for split, expected in summary["splits"].items():
        if counts.get(split, 0) != expected:
            yield (
                f"{summary_file}: split {split} has {expected} impressions, but "
                f"{counts.get(split, 0)} could be read"
            )


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
            raise InputError(f"{name}={path}: no such folder")
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
