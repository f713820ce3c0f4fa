"""Builds a data folder: checks, joins and writes a log and its catalogue."""

import functools
import os
import pathlib
import shutil

import pyarrow as pa
import pyarrow.parquet as pq

from hccm_tf.atomic import new_folder
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.labels import missing_label
from hccm_tf.errors import InputError
from hccm_tf.files import resolve
from hccm_tf.preparation.examples import (
    column_report,
    count,
    fit_schema,
    max_candidates,
    request_ids,
    shards,
    summary,
    write,
)
from hccm_tf.preparation.examples.column_choice import (
    Choice,
    choose_columns,
    types_to_read,
)
from hccm_tf.preparation.examples.columns import (
    ITEM_COLUMNS,
    LOG_COLUMNS,
    check_ids,
    check_names,
)
from hccm_tf.preparation.examples.infer_schema import (
    check_schema_fits,
    complete_schema,
    history_columns,
    infer_schema,
)
from hccm_tf.preparation.examples.items import prepare_items
from hccm_tf.preparation.examples.job import BuildOptions, Job
from hccm_tf.preparation.examples.log_values import HISTORY_ITEM
from hccm_tf.preparation.examples.metadata import write_metadata
from hccm_tf.preparation.steps import Step, run_steps
from hccm_tf.preparation.tables import (
    estimate_rows,
    pieces,
    read_columns,
    read_types,
)

SHARD_ROWS = 100_000
# Every worker keeps a file open for each shard.
MAX_SHARDS = 512
# With fewer shards, to start processes takes longer than they save.
SHARDS_FOR_PROCESSES = 4


def build_examples(
    items,
    impressions,
    output_dir,
    max_history=None,
    schema=None,
    seed=0,
    beam_args=(),
    **options,
):
    """Writes a data folder.

    Args:
        items: path or data frame of the catalogue: `item_id, image, category` and
            attributes.
        impressions: path or data frame of the log: `user_id, item_id, timestamp,
            label`, optionally `split`, `request_id`, `weight` or `history_item_id`, and
            attributes of user, context or impression.
        output_dir: folder to write.
        max_history: number of newest clicks that a history keeps; `None` for the
            schema's, or 100.
        schema: `Schema` to use; `None` infers one from the columns. One with
            vocabularies is used as it is, one without gets the training split's.
        seed: of the order of the training split's requests and the sample of negatives.
        beam_args: Beam's options, list of str.
        **options: fields of `hccm_tf.preparation.examples.job.BuildOptions`.

    Returns:
        dict, the content of `summary.json`.

    Raises:
        InputError: names table, column and row of what is wrong.
    """
    options = BuildOptions(**options)
    with new_folder(output_dir) as folder:
        work = folder.resolve() / "work"
        work.mkdir()
        tables = (
            _to_path(items, "items", work),
            _to_path(impressions, "impressions", work),
        )
        job, choices = _plan(work, *tables, max_history, schema, seed, options)
        job.make_folders()
        processes = _processes(job.num_shards, options.processes)
        run_steps(_steps(job), work, beam_args, processes)
        found = _finish(job, choices)
        shutil.rmtree(work)
    if found["columns"]:
        print("\n".join(column_report.lines(found["columns"])))
    summary.warn(found)
    print(f"{summary.describe(found)} -> {output_dir}")
    # What is only to be scored needs no labels.
    for split in found["splits"] if "train" in found["splits"] else ():
        if lacks := missing_label(DataFolder(output_dir), split):
            print(lacks)
    return found


def _to_path(table, name, work):
    """A table's path; a data frame is written first."""
    if isinstance(table, (str, pathlib.Path)):
        # Workers may have another working directory.
        return resolve(table)
    path = work / f"{name}.parquet"
    try:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise InputError(f"{name}: {error}") from error
    return path


def _choose(items, impressions, schema, options):
    """What becomes of the columns.

    Returns:
        `(read_items, read_log, choices)`: name → Arrow type as which a column of the
        catalogue and of the log is read; name → `Choice` of both.
    """
    types = read_types(impressions, LOG_COLUMNS, dates=["timestamp"])
    item_types = read_types(items, ITEM_COLUMNS, strings=["image"])
    check_names(types, item_types, inferred=schema is None)
    of_items, of_log = choose_columns(
        (items, item_types), (impressions, types), schema, options
    )
    told = schema is not None and "item_id" in schema
    check_ids(types, of_items, of_log, told)
    choices = of_log | of_items
    column_report.warn(choices)
    read = types_to_read(item_types, of_items), types_to_read(types, of_log)
    return *read, choices


def _plan(work, items, impressions, max_history, schema, seed, options):
    """Checks columns and schema and writes the catalogue.

    Returns:
        `(job, choices)`: the `Job` of the steps; name → `Choice` of each column.
    """
    item_types, types, choices = _choose(items, impressions, schema, options)
    becomes = {n: choice.dtype for n, choice in choices.items() if choice.dtype}
    table = read_columns(items, item_types)
    image_is_item = prepare_items(table, becomes, work.parent, work)
    columns = {**becomes, "image": pa.int64()}
    if columns.pop("request_id", None):
        choices["request_id"] = Choice(None, "no feature: it tells requests apart")
    if schema is None:
        if image_is_item:
            del columns["image"]
            choices["image"] = Choice(None, "no feature: no two items share one")
        histories = history_columns(table, columns, options.history_columns)
        schema = infer_schema(columns, histories)
    schema = complete_schema(
        schema,
        item_types,
        max_history=max_history,
        negative_keep_rate=options.negative_keep_rate,
    )
    received = dict.fromkeys(choices) | columns
    check_schema_fits(schema, received, item_types, HISTORY_ITEM not in types)
    rows = estimate_rows(impressions)
    wanted = -(-rows // SHARD_ROWS) or 1
    job = Job(
        output=work.parent,
        work=work,
        pieces=pieces(impressions),
        num_shards=options.num_shards or min(wanted, MAX_SHARDS),
        types=types,
        columns={n: becomes[n] for n in types if n in becomes},
        schema=schema,
        seed=seed,
        options=options,
        rows=rows,
    )
    return job, choices


def _processes(num_shards, wanted):
    few = num_shards < SHARDS_FOR_PROCESSES
    return 1 if few else min(num_shards, wanted or os.cpu_count())


def _steps(job):
    def step(function, times=1, *work):
        return Step(functools.partial(function, job), times, work)

    rows = job.rows, "row"
    reading = step(shards.deal_out, len(job.pieces), "reading", *rows)
    steps = [reading, step(summary.check_read)]
    if "split" not in job.types:
        steps.append(step(shards.split_by_time))
    steps.append(step(count.count, job.num_shards, "counting", *rows))
    steps.append(step(max_candidates.choose))
    if "request_id" in job.types and job.num_shards > 1:
        ranges = request_ids.num_ranges(job)
        steps.append(step(request_ids.check_across, ranges))
    if not job.schema.vocabularies:
        columns = len(job.schema.scalars)
        fitting = "choosing vocabularies", columns, "column"
        steps.append(step(fit_schema.fit, columns, *fitting))
    return [*steps, step(write.write, job.num_shards, "writing", *rows)]


def _finish(job, choices):
    """Writes what describes the shards; the content of `summary.json`."""
    schema = fit_schema.fitted_schema(job)
    written = summary.written_shards(job)
    write_metadata(job, schema, written)
    schema.save(job.output)
    columns = column_report.found_columns(job, schema, choices)
    return summary.write_summary(job, schema, written, columns)
