"""Fits a feature schema to the training split, shard by shard."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epy

from hccm_tf.atomic import new_file
from hccm_tf.data import ids
from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import write_vocabulary
from hccm_tf.preparation.examples.job import write_json
from hccm_tf.preparation.examples.log_values import SPLITS
from hccm_tf.preparation.examples.requests import are_single, differ, values_of
from hccm_tf.preparation.examples.shards import column_of, log_columns_of_requests
from hccm_tf.progress import advance

with epy.lazy_imports():
    import tensorflow as tf


def _moments(values):
    """Count, mean and sum of squared deviations of the finite values."""
    values = values[np.isfinite(values)].astype(np.float64)
    if not len(values):
        return 0, 0.0, 0.0
    mean = values.mean()
    return len(values), float(mean), float(np.square(values - mean).sum())


def _merge_moments(samples):
    """Moments of the union of disjoint samples (Chan et al., 1979)."""
    counts, means, squares = np.array(samples, float).reshape(-1, 3).T
    count = counts.sum()
    mean = (counts * means).sum() / max(count, 1)
    squares = squares.sum() + (counts * np.square(means - mean)).sum()
    return float(mean), float(np.sqrt(squares / max(count, 1)))


def _present(feature, column):
    """The values of a column that are not missing."""
    if pa.types.is_floating(column.type):
        return column.filter(pc.is_finite(column))
    return column.filter(pc.not_equal(column, feature.missing))


def _counted(feature, column):
    """The values that a vocabulary or an integer counts: not those outside."""
    if feature.has_vocabulary:
        return column
    inside = pc.and_(pc.greater_equal(column, 0), pc.less(column, feature.size))
    return column.filter(inside)


def count(job, shard, loaded):
    """Counts the values and sums up the numbers of a shard's training rows.

    Leaves `counts/<shard>.json` with what was found of each feature, whether it differs
    within requests, too, and `counts/<feature>.values/<shard>.parquet`.

    Args:
        job: `Job`.
        shard: its number.
        loaded: `Shard`, or `None` where it has no rows.
    """
    found = {}
    if loaded is not None:
        table, train = loaded.table, loaded.split == SPLITS.index("train")
        of_requests = () if are_single(loaded.request) else log_columns_of_requests(job)
        for feature in job.schema.scalars:
            column = column_of(job, table, feature.name, train)
            present = _present(feature, column)
            found[feature.name] = {
                "rows": len(column),
                "present": len(present),
                # Of all shards together it is the same, however many there are.
                "example": pc.min(present).as_py(),
                "differs": feature.name in of_requests
                and differ(loaded.request, values_of(table[feature.name])),
            }
            if feature.is_float:
                moments = _moments(present.to_numpy())
                found[feature.name]["moments"] = moments
            if feature.is_counted:
                values, counts = pc.value_counts(_counted(feature, present)).flatten()
                path = job.counts_folder(feature) / f"{shard:05d}.parquet"
                counted = pa.table({"value": values, "count": counts})
                with new_file(path, lasting=False) as temporary:
                    pq.write_table(counted, temporary)
    write_json(job.work / "counts" / f"{shard:05d}.json", found)


def _read_counts(job, feature):
    """Arrow table `value, count` over all shards."""
    files = sorted(job.counts_folder(feature).glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in files])
    table = table.group_by("value").aggregate([("count", "sum")])
    return table.rename_columns({"count_sum": "count"})


def fit(job, number):
    """Step after the count: fits feature `number` of the schema to all shards' counts.

    Leaves `features/<number>.json`, with what was found of the feature, and, of a
    vocabulary, its values in the output.
    """
    feature = job.schema.scalars[number]
    counts = [
        found[feature.name]
        for path in sorted((job.work / "counts").glob("*.json"))
        if (found := json.loads(path.read_text()))
    ]
    if any(found["differs"] for found in counts):
        feature = dataclasses.replace(feature, candidate=True)
    rows, present = (sum(f[name] for f in counts) for name in ("rows", "present"))
    examples = [f["example"] for f in counts if f["example"] is not None]
    report = {
        "values": None,
        "mostly_once": False,
        "missing": 1 - present / rows if rows else None,
        "example": min(examples, default=None),
    }
    if feature.is_counted:
        table = _read_counts(job, feature)
        report["values"] = len(table)
        report["mostly_once"] = 2 * len(table) > present
        if feature.has_vocabulary:
            feature, warnings = _fit_vocabulary(job, feature, table)
            job.leave_warnings(f"{number:04d}", warnings)
        else:
            feature = dataclasses.replace(feature, frequency=_frequency(table))
    if feature.is_float:
        mean, std = _merge_moments([found["moments"] for found in counts])
        feature = dataclasses.replace(
            feature, dtype="float32", mean=mean, std=std or 1.0
        )
    found = {"feature": dataclasses.asdict(feature), "report": report}
    write_json(job.work / "features" / f"{number:04d}.json", found)
    advance(1)


def _frequency(table):
    return pc.sum(table["count"]).as_py() / len(table) if len(table) else 0.0


def _fit_vocabulary(job, feature, table):
    """The feature with its vocabulary, which is written, and warnings, list of str."""
    table = table.filter(pc.greater_equal(table["count"], job.options.min_count))
    most = job.options.max_vocabulary
    if len(table) > most:
        return dataclasses.replace(feature, kind="hash", size=most), []
    keys, order, collisions = ids.distinct_keys(table["value"], table["count"])
    values, checks = table["value"].to_numpy()[order], None
    if feature.dtype == "string":
        checks = ids.to_checks(tf.constant(values, tf.string)).numpy()
    counts = table["count"].to_numpy()[order]
    write_vocabulary(job.output, feature.name, keys, checks, counts, values)
    column = f"column {feature.name}"
    warnings = ids.describe_collisions(column, collisions, "out-of-vocabulary")
    frequency = _frequency(table)
    return dataclasses.replace(feature, size=len(keys), frequency=frequency), warnings


def fitted_schema(job):
    """The schema as the last step left it."""
    if job.schema.vocabularies:
        return job.schema
    fitted = [
        Feature(**json.loads(path.read_text())["feature"])
        for path in sorted((job.work / "features").glob("*.json"))
    ]
    dtypes = {feature.name: feature.dtype for feature in fitted}
    sequences = [
        dataclasses.replace(feature, dtype=dtypes[feature.shares])
        for feature in job.schema.sequences
    ]
    return dataclasses.replace(job.schema, features=(*fitted, *sequences))


def reports(job):
    """What was found of each feature that was fitted: name → dict."""
    found = (
        json.loads(path.read_text())
        for path in sorted((job.work / "features").glob("*.json"))
    )
    return {entry["feature"]["name"]: entry["report"] for entry in found}
