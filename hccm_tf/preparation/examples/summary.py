"""What was read, left out and written: `summary.json`."""

import json
import pathlib

from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.impressions import HISTORY_ITEM, check_bad_rows


def check_read(job, _):
    """Step after the log was read: the pieces' bad rows together are not too many."""
    read = _read_all(job.work / "pieces")
    total = _total_counts(read)
    check_bad_rows(total["bad_row"], _bad_rows(read), job.options.max_bad_rows)
    if total["rows"] == total["bad_row"] + total["unknown_item"]:
        raise InputError(
            f"impressions: no row is left of {total['rows']}: {total['bad_row']} are "
            f"bad, {total['unknown_item']} of items that are not in the catalogue"
        )


def written_shards(job):
    """Split → list of `(rows, bytes)` of its shards, once all are written.

    Raises:
        InputError: if a split is empty.
    """
    written = _read_all(job.work / "written")
    shards = {
        name: [shard["splits"][name] for shard in written]
        for name in job.options.splits
    }
    for name, sizes in shards.items():
        if not sum(rows for rows, _ in sizes):
            raise InputError(f"impressions: split {name} is empty")
    return shards


def write_summary(job, shards):
    """Writes and returns the summary, dict.

    Args:
        job: `Job`.
        shards: of `written_shards`.
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
            name: sum(rows for rows, _ in sizes) for name, sizes in shards.items()
        },
    }
    path = pathlib.Path(DataFolder(job.output).summary_file)
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _read_all(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def _bad_rows(read):
    return [row for piece in read for row in piece["bad_rows"]]


def _total_counts(read):
    return {
        key: sum(piece["counts"][key] for piece in read)
        for key in ("rows", "bad_row", "unknown_item")
    }
