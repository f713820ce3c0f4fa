"""Builds a data folder: checks, joins and writes a log and its catalogue."""

import functools
import os
import pathlib
import shutil

import pyarrow as pa
import pyarrow.parquet as pq

from hccm_tf.atomic import new_folder
from hccm_tf.errors import InputError
from hccm_tf.files import is_remote
from hccm_tf.preparation.examples import (
    count,
    fit_schema,
    max_candidates,
    request_ids,
    shards,
    summary,
    write,
)
from hccm_tf.preparation.examples.columns import LOG_COLUMNS, column_types
from hccm_tf.preparation.examples.infer_schema import (
    check_schema_fits,
    complete_schema,
    infer_schema,
)
from hccm_tf.preparation.examples.items import ITEM_COLUMNS, prepare_items
from hccm_tf.preparation.examples.job import BuildOptions, Job
from hccm_tf.preparation.examples.log_values import HISTORY_ITEM
from hccm_tf.preparation.examples.metadata import write_metadata
from hccm_tf.preparation.steps import Step, run_steps
from hccm_tf.preparation.tables import estimate_rows, pieces, read_table, read_types

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
        job = _plan(work, *tables, max_history, schema, seed, options)
        job.make_folders()
        run_steps(_steps(job), work, beam_args, _processes(job.num_shards))
        found = _finish(job)
        shutil.rmtree(work)
    print(*found["warnings"], sep="\n", end="\n" * bool(found["warnings"]))
    print(f"{summary.describe(found)} -> {output_dir}")
    return found


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


def _plan(work, items, impressions, max_history, schema, seed, options):
    """Checks columns and schema, writes the catalogue; the `Job` of the steps."""
    types = read_types(impressions, LOG_COLUMNS)
    table = read_table(items, ITEM_COLUMNS, strings=["image"])
    item_types, image_is_item = prepare_items(table, work.parent, work)
    columns = column_types(types, item_types)
    inferred = schema is None
    if inferred:
        left_out = {"image"} if image_is_item else set()
        schema = infer_schema({n: t for n, t in columns.items() if n not in left_out})
    schema = complete_schema(
        schema,
        item_types,
        max_history=max_history,
        negative_keep_rate=options.negative_keep_rate,
    )
    check_schema_fits(schema, columns, item_types, HISTORY_ITEM not in types)
    wanted = -(-estimate_rows(impressions) // SHARD_ROWS) or 1
    return Job(
        output=work.parent,
        work=work,
        pieces=pieces(impressions),
        num_shards=options.num_shards or min(wanted, MAX_SHARDS),
        types=types,
        schema=schema,
        inferred=inferred,
        seed=seed,
        options=options,
    )


def _processes(num_shards):
    few = num_shards < SHARDS_FOR_PROCESSES
    return 1 if few else min(num_shards, os.cpu_count())


def _steps(job):
    def step(function, times=1):
        return Step(functools.partial(function, job), times)

    steps = [step(shards.deal_out, len(job.pieces)), step(summary.check_read)]
    if "split" not in job.types:
        steps.append(step(shards.split_by_time))
    steps.append(step(count.count, job.num_shards))
    steps.append(step(max_candidates.choose))
    if "request_id" in job.types and job.num_shards > 1:
        ranges = request_ids.num_ranges(job)
        steps.append(step(request_ids.check_across, ranges))
    if not job.schema.vocabularies:
        steps.append(step(fit_schema.fit, len(job.schema.scalars)))
    return [*steps, step(write.write, job.num_shards)]


def _finish(job):
    """Writes what describes the shards; the content of `summary.json`."""
    schema = fit_schema.fitted_schema(job)
    written = summary.written_shards(job)
    write_metadata(job, schema, written)
    schema.save(job.output)
    return summary.write_summary(job, schema, written)
