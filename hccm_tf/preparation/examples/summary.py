"""What was read, left out and written: `summary.json`."""

import itertools
import json
import pathlib
import sys

from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.impressions import (
    COUNTS,
    LISTED_UNKNOWN,
    check_bad_rows,
)
from hccm_tf.preparation.examples.job import write_json
from hccm_tf.preparation.examples.log_values import HISTORY_ITEM
from hccm_tf.preparation.examples.max_candidates import max_candidates


def check_read(job, _):
    """Step after the log was read: the pieces' bad rows together are not too many.

    Leaves `first_rows.json`: the number of the first row of each piece.
    """
    read = _read_all(job.work / "pieces")
    rows = [piece["counts"]["rows"] for piece in read]
    first = list(itertools.accumulate(rows[:-1], initial=0))
    write_json(job.work / "first_rows.json", first)
    total = _total_counts(read)
    check_bad_rows(total["bad_row"], _bad_rows(read), job.options.max_bad_rows)
    if total["rows"] == total["bad_row"] + total["unknown_item"]:
        raise InputError(
            f"impressions: no row is left of {total['rows']}: {total['bad_row']} are "
            f"bad, {total['unknown_item']} of items that are not in the catalogue"
            f"{_such_as(read)}"
        )
    most = job.options.max_unknown_share
    for share, message in _unknown(read):
        if share > most:
            raise InputError(
                f"{message}: give the catalogue of this log, or allow more than "
                f"max_unknown_share={most:g}"
            )


def _unknown(read):
    """Yields the share of what the catalogue lacks, and a sentence that says so.

    Args:
        read: what was read of each piece, list of dicts.
    """
    total = _total_counts(read)
    good = total["rows"] - total["bad_row"]
    for what, unknown, of in (
        ("impressions", total["unknown_item"], good),
        ("items of histories", total["unknown_history_items"], total["history_items"]),
    ):
        if unknown:
            share = unknown / of
            yield (
                share,
                f"{unknown} of {of} {what} ({share:.0%}) are of items that are not in "
                f"the catalogue{_such_as(read)}",
            )


def _such_as(read):
    unknown = list(dict.fromkeys(item for piece in read for item in piece["unknown"]))
    return f", such as {', '.join(unknown[:LISTED_UNKNOWN])}" if unknown else ""


def written_shards(job):
    """What was written: split → list of `(requests, bytes, impressions)` of its shards.

    Raises:
        InputError: if a split is empty.
    """
    written = _read_all(job.work / "written")
    shards = {
        name: [shard["splits"][name] for shard in written]
        for name in job.options.splits
    }
    for name, sizes in shards.items():
        if not sum(records for records, _, _ in sizes):
            raise InputError(f"impressions: split {name} is empty")
    return shards


def write_summary(job, schema, shards, columns):
    """Writes and returns the summary, dict.

    Args:
        job: `Job`.
        schema: `Schema` as it was fitted.
        shards: of `written_shards`.
        columns: of `hccm_tf.preparation.examples.column_report.found_columns`.
    """
    read, written = (_read_all(job.work / name) for name in ("pieces", "written"))
    total = _total_counts(read)
    summary = {
        "rows": total["rows"],
        "skipped": {key: total[key] for key in ("unknown_item", "bad_row")},
        "bad_rows": _bad_rows(read),
        "negatives_left_out": sum(shard["negatives"] for shard in written),
        "history_rows": sum(shard["history_rows"] for shard in written),
        "ready_made_histories": HISTORY_ITEM in job.types,
        "splits": {
            name: sum(impressions for _, _, impressions in sizes)
            for name, sizes in shards.items()
        },
        "requests": {
            name: sum(records for records, _, _ in sizes)
            for name, sizes in shards.items()
        },
        "max_candidates": max_candidates(job),
        "warnings": [
            *(f"warning: {line}; they are left out" for _, line in _unknown(read)),
            *_warnings(job),
        ],
        "request_ids": "request_id" in job.types,
        "weighted": "weight" in job.types,
        "candidate_columns": [
            feature.name
            for feature in schema.scalars
            if feature.candidate and feature.name not in job.items.column_names
        ],
        "columns": columns,
    }
    path = pathlib.Path(DataFolder(job.output).summary_file)
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def warn(summary):
    """Prints the warnings of a summary, dict."""
    for line in summary["warnings"]:
        print(line, file=sys.stderr)


def describe(summary):
    """A summary, dict, in one line."""
    columns = ", ".join(summary["candidate_columns"]) or "none"
    return (
        f"impressions {summary['splits']}, requests {summary['requests']} of at most "
        f"{summary['max_candidates']} candidates, the log's columns that differ among "
        f"them: {columns}; left out: {summary['skipped']['unknown_item']} impressions "
        f"of items that are not in the catalogue, {summary['skipped']['bad_row']} bad "
        f"rows, {summary['negatives_left_out']} negatives"
    )


def _read_all(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def _warnings(job):
    found = sorted(job.work.glob("warnings-*.json"))
    return [line for path in found for line in json.loads(path.read_text())]


def _bad_rows(read):
    return [row for piece in read for row in piece["bad_rows"]]


def _total_counts(read):
    return {key: sum(piece["counts"][key] for piece in read) for key in COUNTS}
