"""Builds a data folder: checks, joins and writes a log and its catalogue."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds

from hccm_tf.atomic import new_folder
from hccm_tf.data.feature import HISTORY
from hccm_tf.errors import InputError
from hccm_tf.files import is_remote
from hccm_tf.preparation.examples import fit_schema
from hccm_tf.preparation.examples import shards as parts
from hccm_tf.preparation.examples import write as write_examples
from hccm_tf.preparation.examples.impressions import (
    CHECKED,
    HISTORY_ITEM,
    SPLITS,
    check_bad_rows,
    log_type,
)
from hccm_tf.preparation.examples.items import ITEM_COLUMNS, prepare_items
from hccm_tf.preparation.steps import Step, run_steps
from hccm_tf.preparation.tables import estimate_rows, pieces, read_table, read_types

RESERVED = ("key", "user_key", "item_row", "image_key")
LOG_COLUMNS = ["user_id", "item_id", "label"]
MAX_HISTORY = 100
PART_ROWS = 100_000
# Every worker keeps a file open for each part.
MAX_PARTS = 512
# With fewer parts, to start processes takes longer than they save.
PARTS_FOR_PROCESSES = 4


def _to_path(table, name, work):
    """A table's path; a data frame is written first."""
    if isinstance(table, (str, pathlib.Path)):
        # Workers may have another working directory.
        return table if is_remote(table) else pathlib.Path(table).resolve()
    path = work / f"{name}.parquet"
    try:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise InputError(f"{name}: {error}") from error
    return path


def _check_columns(types, item_types):
    for name in (*types, *item_types):
        other_history = name.startswith(HISTORY) and name != HISTORY_ITEM
        if name in RESERVED or other_history or not name or "/" in name:
            raise InputError(
                f"column {name!r}: the name is used here or is none for a file; rename "
                "the column"
            )
    untimed = "split" in types and HISTORY_ITEM in types
    if "timestamp" not in types and not untimed:
        raise InputError(
            "impressions: no column timestamp, which only a log with split and "
            f"{HISTORY_ITEM} does without. Received columns: {', '.join(types)}"
        )
    both = sorted(set(item_types) & set(types) - {"item_id"})
    if both:
        raise InputError(f"items and impressions both have a column {', '.join(both)}")
    found = {"item_id": types["item_id"]}
    if HISTORY_ITEM in types:
        found[HISTORY_ITEM] = getattr(types[HISTORY_ITEM], "value_type", None)
    for name, dtype in found.items():
        if dtype is None:
            raise InputError(
                f"impressions: column {name}: a list of item ids. Received: "
                f"{types[name]}"
            )
        empty = pa.types.is_null(dtype)
        if not empty and log_type("item_id", dtype) != item_types["item_id"]:
            raise InputError(
                f"item_id is {item_types['item_id']} in items and {name} is {dtype} in "
                "impressions: write both as integers or both as text"
            )


def _read_all(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def _total_counts(pieces_read):
    return {
        key: sum(piece["counts"][key] for piece in pieces_read)
        for key in ("rows", "bad_row", "unknown_item")
    }


def _check_read(job, _):
    """Step after the log was read: the pieces' bad rows together are not too many."""
    found = _read_all(job.work / "pieces")
    bad_rows = [row for piece in found for row in piece["bad_rows"]]
    total = _total_counts(found)
    check_bad_rows(total["bad_row"], bad_rows, job.max_bad_rows)
    if total["rows"] == total["bad_row"] + total["unknown_item"]:
        raise InputError(
            f"impressions: no row is left of {total['rows']}: {total['bad_row']} are "
            f"bad, {total['unknown_item']} of items that are not in the catalogue"
        )


def _write_metadata(job, schema):
    """Writes and returns the summary, and writes what tensorflow-datasets reads."""
    written = _read_all(job.work / "written")
    read = _read_all(job.work / "pieces")
    shards = {name: [part["splits"][name] for part in written] for name in job.splits}
    counts = {name: sum(rows for rows, _ in shards[name]) for name in job.splits}
    for name, count in counts.items():
        if not count:
            raise InputError(f"impressions: split {name} is empty")
    total = _total_counts(read)
    summary = {
        "rows": total["rows"],
        "skipped": {key: total[key] for key in ("unknown_item", "bad_row")},
        "bad_rows": [row for piece in read for row in piece["bad_rows"]],
        "negatives_left_out": sum(part["negatives"] for part in written),
        "history_rows": sum(part["history_rows"] for part in written),
        "ready_made_histories": HISTORY_ITEM in job.types,
        "splits": counts,
    }
    (job.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    types = {"int64": np.int64, "float32": np.float32, "string": np.str_}
    features = {
        name: tfds.features.Scalar(types[dtype])
        for name, dtype in write_examples.scalar_dtypes(job, schema).items()
    }
    for name, dtype in write_examples.sequence_dtypes(schema).items():
        features[name] = tfds.features.Tensor(shape=(None,), dtype=types[dtype])
    tfds.folder_dataset.write_metadata(
        data_dir=job.output,
        features=tfds.features.FeaturesDict(features),
        split_infos=[
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=[rows for rows, _ in shards[name]],
                num_bytes=sum(size for _, size in shards[name]),
            )
            for name in job.splits
        ],
        check_data=False,
        description="Impressions with the user's newest "
        f"{schema.max_history} clicks before.",
    )
    return summary


def build_examples(
    items,
    impressions,
    output_dir,
    max_history=None,
    schema=None,
    seed=0,
    negative_keep_rate=None,
    splits=SPLITS,
    beam_args=(),
    num_parts=None,
    **options,
):
    """Writes a data folder.

    Args:
        items: path or data frame of the catalogue: `item_id, image, category` and
            attributes.
        impressions: path or data frame of the log: `user_id, item_id, timestamp,
            label`, optionally `split` or `history_item_id`, and user or context
            attributes.
        output_dir: folder to write.
        max_history: number of newest clicks that a history keeps; `None` for the
            schema's, or 100.
        schema: `Schema` to use; `None` infers one from the columns. One with
            vocabularies is used as it is, one without gets the training split's.
        seed: of the order of the training split's rows and the sample of negatives.
        negative_keep_rate: share of the training split's negatives that is kept;
            `None` for the schema's, which is 1 unless it says otherwise.
        splits: the splits that must be there.
        beam_args: Beam's options, list of str.
        num_parts: number of shards; by default one for each 100,000 impressions. One
            shard keeps the log's order but for the training split.
        **options: `min_count`, `max_vocabulary` and `max_bad_rows` of
            `hccm_tf.preparation.examples.shards.Job`.

    Returns:
        dict, the content of `summary.json`.

    Raises:
        InputError: names table, column and row of what is wrong.
    """
    with new_folder(output_dir) as folder:
        folder = folder.resolve()
        work = folder / "work"
        work.mkdir()
        items = _to_path(items, "items", work)
        impressions = _to_path(impressions, "impressions", work)
        types = read_types(impressions, LOG_COLUMNS)
        items = read_table(items, ITEM_COLUMNS, strings=["image"])
        item_types, image_is_item = prepare_items(items, folder, work)
        del items
        _check_columns(types, item_types)
        columns = {
            name: log_type(name, dtype)
            for name, dtype in types.items()
            if name not in CHECKED
        }
        columns.update(item_types)
        given = schema
        if schema is None:
            inferred = dict(columns)
            if image_is_item:
                del inferred["image"]
            schema = fit_schema.infer_schema(inferred, MAX_HISTORY)
        changes = {
            "max_history": max_history,
            "negative_keep_rate": negative_keep_rate,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        features = tuple(
            dataclasses.replace(feature, candidate=feature.name in item_types)
            for feature in schema.features
        )
        schema = dataclasses.replace(schema, features=features, **changes)
        joined = HISTORY_ITEM not in types
        fit_schema.check_schema(schema, columns, item_types, joined)
        rows = estimate_rows(impressions)
        job = parts.Job(
            output=folder,
            work=work,
            pieces=pieces(impressions),
            parts=num_parts or min(-(-rows // PART_ROWS) or 1, MAX_PARTS),
            types=types,
            schema=schema,
            inferred=given is None,
            splits=tuple(splits),
            seed=seed,
            **options,
        )
        job.make_folders()
        run_steps(
            _steps(job),
            work,
            beam_args,
            1 if job.parts < PARTS_FOR_PROCESSES else min(job.parts, os.cpu_count()),
        )
        schema = fit_schema.fitted_schema(job)
        summary = _write_metadata(job, schema)
        schema.save(folder)
        shutil.rmtree(work)
    print(
        f"{summary['splits']}; left out: {summary['skipped']['unknown_item']} "
        "impressions of items that are not in the catalogue, "
        f"{summary['skipped']['bad_row']} bad rows, "
        f"{summary['negatives_left_out']} negatives -> {output_dir}"
    )
    return summary


def _steps(job):
    def step(function, count=1):
        return Step(functools.partial(function, job), count)

    steps = [step(parts.partition, len(job.pieces)), step(_check_read)]
    if "split" not in job.types:
        steps.append(step(parts.split_by_time))
    if not job.schema.vocabularies:
        steps.append(step(fit_schema.count, job.parts))
        steps.append(step(fit_schema.fit, len(job.schema.scalars)))
    return [*steps, step(write_examples.write, job.parts)]
