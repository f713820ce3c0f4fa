"""Small catalogues and logs for the tests of the data tools, and how to read DATA."""

import numpy as np
import pandas as pd
import tensorflow as tf

from hccm_tf.data.folder import DataFolder
from hccm_tf.data.parsing import parse_spec

OWN_LISTS = {"label", "row", "image", "timestamp", "weight"}


def make_items(**columns):
    """Five items; the last two have no image, the fourth no category."""
    return pd.DataFrame(
        {
            "item_id": [1, 2, 3, 4, 5],
            "image": ["a", "b", "c", "", None],
            "category": ["x", "y", "x", None, "y"],
            **columns,
        }
    )


def make_log(count=40, users=3, **columns):
    """`count` impressions, two a second; the last four are validation and test."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user_id": rng.integers(1, users + 1, count),
            "item_id": rng.integers(1, 6, count),
            "timestamp": np.arange(count) // 2,
            "label": rng.integers(0, 2, count),
            "split": ["train"] * (count - 4) + ["validation"] * 2 + ["test"] * 2,
            **columns,
        }
    )


def read_examples(folder, split, files=None):
    """The features of a split's records, or of those in some `files`, in order."""
    records = tf.data.TFRecordDataset(files or DataFolder(folder).files(split))
    return [
        tf.train.Example.FromString(record.numpy()).features.feature
        for record in records
    ]


def read_rows(folder, split, *names, files=None):
    """One tuple for each record: all values of these features."""
    rows = []
    for example in read_examples(folder, split, files):
        kinds = [example[name].WhichOneof("kind") for name in names]
        values = [
            tuple(getattr(example[name], kind).value)
            for name, kind in zip(names, kinds, strict=True)
        ]
        rows.append(tuple(values))
    return rows


def candidate_columns(folder):
    """Names of the features that are lists of a record's candidates."""
    schema = DataFolder(folder).schema(with_vocabularies=False)
    return OWN_LISTS | {f.name for f in schema.scalars if f.candidate}


def read_impressions(folder, split, *names, files=None):
    """One tuple for each impression: its value, the user's or the history's values."""
    lists = candidate_columns(folder)
    found = []
    for record in read_rows(folder, split, "label", *names, files=files):
        for place in range(len(record[0])):
            found.append(
                tuple(
                    (values[place],) if name in lists else values
                    for name, values in zip(names, record[1:], strict=True)
                )
            )
    return found


def read_inputs(folder, split):
    """A split's model inputs, one row for each impression, dict of arrays."""
    schema = DataFolder(folder).schema()
    records = tf.data.TFRecordDataset(DataFolder(folder).files(split))
    serialized = list(records.as_numpy_iterator())
    raw = tf.io.parse_example(serialized, parse_spec(schema))
    sizes = raw["label"].row_lengths()
    inputs = {}
    for feature in schema.scalars:
        values = raw[feature.name]
        flat = values.flat_values if feature.candidate else tf.repeat(values, sizes)
        inputs[feature.name] = schema.index(feature.name, flat).numpy()
    for feature in schema.sequences:
        clicks = raw[feature.name]
        index = schema.index(feature.shares, clicks.flat_values)
        padded = clicks.with_flat_values(index).to_tensor()
        inputs[feature.name] = tf.repeat(padded, sizes, axis=0).numpy()
    return inputs
