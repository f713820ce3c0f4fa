"""Joins a click log with its catalogue into TFRecords of `tf.train.Example`.

    python -m tfrecords_tools.build_examples --items=SHOP/items.csv \
        --impressions=SHOP/impressions.csv --output_dir=DATA

DATA holds `impressions-<split>.tfrecord-00000-of-00004`, the feature schema
(`schema.json`, which can be edited and passed back with --schema), the vocabularies
of the training split, the images of the catalogue (`catalogue.parquet`), and the two
files with which `tensorflow_datasets.builder_from_directory(DATA)` opens it.

Impressions of an item that is not in the catalogue are left out and counted. Without
a `split` column the newest 10% of the impressions are `test` and the 10% before them
`validation`. Rows of split `history` feed the histories and are not written.
"""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags

from hccm_tf import ids
from hccm_tf.atomic import new_folder
from hccm_tf.data.histories import point_in_time
from hccm_tf.errors import InputError, report_input_errors
from hccm_tf.features import (
    HISTORY,
    HISTORY_IMAGE,
    MISSING_INTEGER,
    Feature,
    Schema,
    read_schema,
)
from tfrecords_tools.tables import read_table

SPLITS = ("train", "validation", "test")
ITEM_COLUMNS = ["item_id", "image", "category"]
IMPRESSION_COLUMNS = ["user_id", "item_id", "timestamp", "label"]
SHARD_ROWS = 20_000
# An integer attribute with more distinct values than this is a quantity, not a code.
MAX_CODES = 1_000


def _bad_row(table, column, bad, problem):
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{table}: column {column}, row {row + 1}: {problem}. "
            f"Received: {np.count_nonzero(bad)} such rows"
        )


def _to_seconds(column, table):
    if column.dtype.kind == "M":
        _bad_row(table, column.name, column.isna().to_numpy(), "empty")
        utc = pd.to_datetime(column, utc=True).dt.tz_localize(None)
        return utc.astype("datetime64[s]").astype("int64")
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    bad = ~np.isfinite(numbers.to_numpy(na_value=np.nan))
    _bad_row(table, column.name, bad, "not a time in seconds")
    return numbers.astype("int64")


def _check_items(items):
    _bad_row("items", "item_id", items.item_id.isna().to_numpy(), "empty")
    _bad_row("items", "item_id", items.item_id.duplicated().to_numpy(), "a repeated id")


def _check_impressions(impressions):
    """The impressions with label and timestamp as int64 and every row with a split."""
    for name in ("user_id", "item_id"):
        _bad_row("impressions", name, impressions[name].isna().to_numpy(), "empty")
    label = pd.to_numeric(impressions.label, errors="coerce")
    _bad_row(
        "impressions", "label", ~label.isin([0, 1]).to_numpy(), "a label is 0 or 1"
    )
    impressions = impressions.assign(
        label=label.astype("int64"),
        timestamp=_to_seconds(impressions.timestamp, "impressions"),
    )
    if "split" not in impressions:
        place = impressions.timestamp.rank(method="min", pct=True)
        split = np.select([place <= 0.8, place <= 0.9], ["train", "validation"], "test")
        impressions = impressions.assign(split=split)
    known = impressions.split.isin([*SPLITS, "history"]).to_numpy()
    _bad_row("impressions", "split", ~known, f"a split is one of {SPLITS}")
    return impressions


def _to_log_dtype(column):
    """A column as int64, float32 or string, with the missing values of its dtype."""
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_integer_dtype(column):
        return column.astype("Int64").fillna(MISSING_INTEGER).astype("int64")
    if pd.api.types.is_numeric_dtype(column):
        return column.astype("float32")
    return column.fillna("").astype(str).astype(object)


def _infer_feature(name, column):
    if column.dtype == np.float32:
        return Feature(name, "float", "float32")
    dtype = "string" if column.dtype == object else "int64"
    key = name in ("user_id", "item_id", "category", "image")
    if dtype == "int64" and not key and column.nunique() > MAX_CODES:
        return Feature(name, "float", "float32")
    return Feature(name, "vocabulary", dtype)


def _infer_schema(columns, image_is_item, max_history):
    names = [name for name in columns if name not in ("label", "timestamp", "split")]
    if image_is_item:
        names.remove("image")
    features = [_infer_feature(name, columns[name]) for name in names]
    for name in ("item_id", "category"):
        features.append(Feature(HISTORY + name, "sequence", shares=name))
    return Schema(tuple(features), max_history)


def _frequency(values):
    return len(values) / max(len(pd.unique(values)), 1)


def _fit_schema(schema, columns, train):
    """The schema with the training split's vocabularies, frequencies and means."""
    features, vocabularies, values_of = [], {}, {}
    for feature in schema.features:
        name = feature.name
        if feature.kind == "sequence":
            dtype = schema[feature.shares].dtype
            feature = dataclasses.replace(feature, dtype=dtype)
        elif feature.kind == "float":
            values = columns[name][train].astype("float64")
            values = values[np.isfinite(values)]
            feature = dataclasses.replace(
                feature,
                dtype="float32",
                mean=float(values.mean()) if len(values) else 0.0,
                std=float(values.std() if len(values) else 0.0) or 1.0,
            )
        elif feature.kind == "vocabulary":
            missing = MISSING_INTEGER if feature.dtype == "int64" else ""
            if name == "image":
                missing = ids.NO_IMAGE
            known = columns[name][train]
            known = known[known != missing]
            values = pd.unique(known)
            vocabularies[name], order = ids.sorted_unique_keys(values, name)
            values_of[name] = values[order]
            feature = dataclasses.replace(
                feature,
                size=len(values),
                frequency=_frequency(known),
            )
        elif feature.kind == "integer":
            values = columns[name][train]
            values = values[(values >= 0) & (values < feature.size)]
            feature = dataclasses.replace(feature, frequency=_frequency(values))
        features.append(feature)
    return Schema(tuple(features), schema.max_history, vocabularies), values_of


def _as_feature(feature, columns):
    """The values of a feature's column, of the feature's dtype."""
    if feature.name not in columns:
        raise InputError(
            f"schema: no column {feature.name}. Received: {', '.join(columns)}"
        )
    values = columns[feature.name]
    dtype = "string" if values.dtype == object else str(values.dtype)
    if dtype == "int64" and feature.kind == "float":
        return np.where(values == MISSING_INTEGER, np.nan, values).astype("float32")
    wanted = {"float": "float32", "integer": "int64"}.get(feature.kind, feature.dtype)
    is_code = feature.kind in ("hash", "vocabulary")
    if dtype != wanted or (is_code and dtype == "float32"):
        raise InputError(
            f"schema: feature {feature.name} of kind {feature.kind} and dtype {wanted} "
            f"does not fit its column, which is {dtype}"
        )
    return values


def _to_feature(dtype):
    """Function from a list of values to a `tf.train.Feature` of a dtype."""
    if dtype == "string":
        return lambda values: tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[value.encode() for value in values])
        )
    if dtype == "float32":
        return lambda values: tf.train.Feature(
            float_list=tf.train.FloatList(value=values)
        )
    return lambda values: tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _write_split(folder, split, rows, scalars, histories):
    """Writes the shards of one split.

    Args:
        folder: where.
        split: name.
        rows: int64, the impressions to write, in order.
        scalars: name → `(dtype, values)`, the values of all impressions.
        histories: `(order, begin, end, columns)`: the slices of `point_in_time` and
            name → `(dtype, values of all clicks)`.
    """
    order, begin, end, columns = histories
    scalars = [(name, _to_feature(d), v.tolist()) for name, (d, v) in scalars.items()]
    columns = [
        (name, _to_feature(d), v[order].tolist()) for name, (d, v) in columns.items()
    ]
    num_bytes = 0
    shards = np.array_split(rows, -(-len(rows) // SHARD_ROWS))
    for shard, part in enumerate(shards):
        name = f"impressions-{split}.tfrecord-{shard:05d}-of-{len(shards):05d}"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for row in part.tolist():
                first, last = begin[row], end[row]
                feature = {name: make([v[row]]) for name, make, v in scalars}
                for name, make, v in columns:
                    feature[name] = make(v[first:last])
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                # Maps have no order of their own: without this, runs differ in bytes.
                serialized = example.SerializeToString(deterministic=True)
                num_bytes += len(serialized)
                writer.write(serialized)
    return tfds.core.SplitInfo(
        name=split, shard_lengths=[len(part) for part in shards], num_bytes=num_bytes
    )


def _write_tfds_metadata(folder, scalars, columns, max_history, split_infos):
    types = {"int64": np.int64, "float32": np.float32, "string": np.str_}
    features = {
        name: tfds.features.Scalar(types[dtype]) for name, (dtype, _) in scalars.items()
    }
    for name, (dtype, _) in columns.items():
        features[name] = tfds.features.Tensor(shape=(None,), dtype=types[dtype])
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds.features.FeaturesDict(features),
        split_infos=split_infos,
        check_data=False,
        description=f"Impressions with the user's newest {max_history} clicks before.",
    )


def build_examples(
    items, impressions, output_dir, max_history=100, schema=None, seed=0, splits=SPLITS
):
    """Writes a data folder.

    Args:
        items: data frame `item_id, image, category` and attributes.
        impressions: data frame `user_id, item_id, timestamp, label`, optionally
            `split`, and user or context attributes.
        output_dir: folder to write.
        max_history: number of newest clicks that a history keeps.
        schema: `Schema` to use; `None` infers one from the columns. One with
            vocabularies is used as it is, one without gets the training split's.
        seed: of the order of the training split's rows.
        splits: the splits that must be there.

    Returns:
        dict split → number of impressions.

    Raises:
        InputError: names table, column and row of what is wrong.
    """
    _check_items(items)
    impressions = _check_impressions(impressions)
    catalogue = pd.Index(items.item_id)
    item_row = catalogue.get_indexer(impressions.item_id)
    unknown = int((item_row < 0).sum())
    impressions, item_row = impressions[item_row >= 0], item_row[item_row >= 0]
    item_columns = {name: _to_log_dtype(items[name]) for name in items}
    both = sorted(set(items) & set(impressions) - {"item_id"})
    if both:
        raise InputError(f"items and impressions both have a column {', '.join(both)}")
    image_is_item = not items.image[items.image != ""].dropna().duplicated().any()
    images = item_columns["image"].to_numpy(object)
    item_columns["image"] = pd.Series(ids.image_keys(tf.constant(images)).numpy())
    columns = {
        name: _to_log_dtype(impressions[name]).to_numpy()
        for name in impressions
        if name != "split"
    }
    for name, values in item_columns.items():
        columns[name] = values.to_numpy()[item_row]
    split = impressions.split.to_numpy(str)
    for name in splits:
        if not (split == name).any():
            raise InputError(f"impressions: split {name} is empty")
    if schema is None:
        frame = {n: pd.Series(v, dtype=v.dtype) for n, v in columns.items()}
        schema = _infer_schema(frame, image_is_item, max_history)
    for feature in schema.scalars:
        columns[feature.name] = _as_feature(feature, columns)
    values_of = {}
    if not schema.vocabularies:
        schema, values_of = _fit_schema(schema, columns, split == "train")

    clicks = np.flatnonzero(columns["label"] == 1)
    users = pd.factorize(columns["user_id"])[0]
    times = columns["timestamp"]
    slices = point_in_time(
        users[clicks], times[clicks], users, times, schema.max_history
    )
    columns["user_key"] = ids.to_keys(columns["user_id"]).numpy()
    names = ("label", "timestamp", "user_key", "image")
    scalars = {name: ("int64", columns[name]) for name in names}
    for feature in schema.scalars:
        scalars[feature.name] = (feature.dtype, columns[feature.name])
    histories = {HISTORY_IMAGE: ("int64", columns["image"][clicks])}
    for feature in schema.sequences:
        histories[feature.name] = (feature.dtype, columns[feature.shares][clicks])
    counts, split_infos = {}, []
    with new_folder(output_dir) as folder:
        for name in splits:
            rows = np.flatnonzero(split == name)
            if name == "train":
                rows = np.random.default_rng(seed).permutation(rows)
            counts[name] = len(rows)
            split_infos.append(
                _write_split(folder, name, rows, scalars, (*slices, histories))
            )
        schema.save(folder)
        pq.write_table(
            pa.table(
                {
                    "item_id": item_columns["item_id"].to_numpy(),
                    "image": images,
                    "image_key": item_columns["image"].to_numpy(),
                    "category": item_columns["category"].to_numpy(),
                }
            ),
            folder / "catalogue.parquet",
        )
        (folder / "vocabularies").mkdir()
        for name, keys in schema.vocabularies.items():
            table = {"key": keys}
            if name in values_of:
                table["value"] = values_of[name]
            pq.write_table(pa.table(table), folder / "vocabularies" / f"{name}.parquet")
        _write_tfds_metadata(
            folder, scalars, histories, schema.max_history, split_infos
        )
    print(
        f"{counts}; left out: {unknown} impressions of items that are not in the "
        f"catalogue -> {output_dir}"
    )
    return counts


def main(argv):
    """Runs the command line."""
    del argv
    with report_input_errors():
        build_examples(
            read_table(FLAGS.items, ITEM_COLUMNS),
            read_table(FLAGS.impressions, IMPRESSION_COLUMNS),
            FLAGS.output_dir,
            FLAGS.max_history,
            read_schema(FLAGS.schema) if FLAGS.schema else None,
            FLAGS.seed,
        )


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_string("items", None, "Catalogue, CSV or Parquet.", required=True)
    flags.DEFINE_string("impressions", None, "Log, CSV or Parquet.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder to write.", required=True)
    flags.DEFINE_integer("max_history", 100, "Clicks to keep.", lower_bound=1)
    flags.DEFINE_string("schema", None, "Edited schema.json; default: inferred.")
    flags.DEFINE_integer("seed", 0, "Seed of the training rows' order.")
    app.run(main)
