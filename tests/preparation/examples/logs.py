"""Small catalogues and logs for the tests of the data tools."""

import numpy as np
import pandas as pd
import tensorflow as tf

from hccm_tf.data.folder import DataFolder


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
    """The features of a split's examples, or of those in some `files`, in order."""
    records = tf.data.TFRecordDataset(files or DataFolder(folder).files(split))
    return [
        tf.train.Example.FromString(record.numpy()).features.feature
        for record in records
    ]


def read_rows(folder, split, *names, files=None):
    """One tuple for each example: all values of these features."""
    rows = []
    for example in read_examples(folder, split, files):
        kinds = [example[name].WhichOneof("kind") for name in names]
        values = [
            tuple(getattr(example[name], kind).value)
            for name, kind in zip(names, kinds, strict=True)
        ]
        rows.append(tuple(values))
    return rows
