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
from hccm_tf.data.feature import MISSING_INTEGER, Feature
from hccm_tf.data.schema import write_vocabulary
from hccm_tf.preparation.examples.job import write_json
from hccm_tf.preparation.examples.log_values import SPLITS
from hccm_tf.preparation.examples.requests import are_single, differ, values_of
from hccm_tf.preparation.examples.shards import column_of, log_columns_of_requests

with epy.lazy_imports():
    import tensorflow as tf

# An integer attribute with more distinct values than this is a quantity, not a code.
MAX_CODES = 1_000
KEYS = ("user_id", "item_id", "category", "image")


def feature_values(feature, column):
    """A column as its feature has it: int64 as float32 where the kind is `float`."""
    if feature.is_float and column.type == pa.int64():
        missing = pc.equal(column, MISSING_INTEGER)
        numbers = column.cast(pa.float64(), safe=False)
        return pc.if_else(missing, np.nan, numbers).cast(pa.float32())
    return column


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


def _may_be_quantity(job, feature):
    """Whether an inferred code of int64 turns into a float if it has many values."""
    return job.inferred and feature.dtype == "int64" and feature.name not in KEYS


def _known_values(feature, column):
    """The values that a vocabulary or an integer counts: not missing, not outside."""
    if feature.has_vocabulary:
        return column.filter(pc.not_equal(column, feature.missing))
    inside = pc.and_(pc.greater_equal(column, 0), pc.less(column, feature.size))
    return column.filter(inside)


def count(job, shard, loaded):
    """Counts the values and sums up the numbers of a shard's training rows.

    Leaves `counts/<shard>.json` with moments and the columns that differ within
    requests, and `counts/<feature>/<shard>.parquet`.

    Args:
        job: `Job`.
        shard: its number.
        loaded: `Shard`, or `None` where it has no rows.
    """
    moments, differing = {}, []
    if loaded is not None:
        table, train = loaded.table, loaded.split == SPLITS.index("train")
        if not are_single(loaded.request):
            differing = [
                name
                for name in log_columns_of_requests(job)
                if differ(loaded.request, values_of(table[name]))
            ]
        for feature in job.schema.scalars:
            column = column_of(job, table, feature.name, train)
            quantity = feature.is_float or _may_be_quantity(job, feature)
            if quantity:
                numbers = dataclasses.replace(feature, kind="float")
                values = feature_values(numbers, column).to_numpy(zero_copy_only=False)
                moments[feature.name] = _moments(values)
            if feature.is_counted:
                found = pc.value_counts(_known_values(feature, column))
                if quantity and len(found) > MAX_CODES:
                    # So many that the feature is no code, whatever the others are.
                    found = found[: MAX_CODES + 1]
                values, counts = found.flatten()
                path = job.work / "counts" / feature.name / f"{shard:05d}.parquet"
                found = pa.table({"value": values, "count": counts})
                with new_file(path) as temporary:
                    pq.write_table(found, temporary)
    found = {"moments": moments, "differing": differing}
    write_json(job.work / "counts" / f"{shard:05d}.json", found)


def _read_counts(job, feature):
    """Arrow table `value, count` over all shards."""
    files = sorted((job.work / "counts" / feature.name).glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in files])
    table = table.group_by("value").aggregate([("count", "sum")])
    return table.rename_columns({"count_sum": "count"})


def fit(job, number):
    """Step after the count: fits feature `number` of the schema to all shards' counts.

    Leaves `features/<name>.json` and, of a vocabulary, its values in the output.
    """
    feature = job.schema.scalars[number]
    moments = []
    for path in sorted((job.work / "counts").glob("*.json")):
        found = json.loads(path.read_text())
        moments.append(found["moments"].get(feature.name, (0, 0.0, 0.0)))
        if feature.name in found["differing"]:
            feature = dataclasses.replace(feature, candidate=True)
    if feature.is_counted:
        table = _read_counts(job, feature)
        if _may_be_quantity(job, feature) and len(table) > MAX_CODES:
            feature = dataclasses.replace(feature, kind="float", dtype="float32")
        elif feature.has_vocabulary:
            feature, warnings = _fit_vocabulary(job, feature, table)
            job.leave_warnings(f"{number:04d}", warnings)
        else:
            feature = dataclasses.replace(feature, frequency=_frequency(table))
    if feature.is_float:
        mean, std = _merge_moments(moments)
        feature = dataclasses.replace(
            feature, dtype="float32", mean=mean, std=std or 1.0
        )
    write_json(
        job.work / "features" / f"{number:04d}.json", dataclasses.asdict(feature)
    )


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
    write_vocabulary(job.output, feature.name, keys, checks, values)
    column = f"column {feature.name}"
    warnings = ids.describe_collisions(column, collisions, "out-of-vocabulary")
    frequency = _frequency(table)
    return dataclasses.replace(feature, size=len(keys), frequency=frequency), warnings


def fitted_schema(job):
    """The schema as the last step left it."""
    if job.schema.vocabularies:
        return job.schema
    fitted = [
        Feature(**json.loads(path.read_text()))
        for path in sorted((job.work / "features").glob("*.json"))
    ]
    dtypes = {feature.name: feature.dtype for feature in fitted}
    sequences = [
        dataclasses.replace(feature, dtype=dtypes[feature.shares])
        for feature in job.schema.sequences
    ]
    return dataclasses.replace(job.schema, features=(*fitted, *sequences))
