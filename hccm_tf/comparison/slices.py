"""Slices of the test split: cold, rare and popular items, short and long histories."""

import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.parsing import parse_spec

BATCH_SIZE = 4_096


def read_columns(data_dir, split, names):
    """Columns of a split's impressions, in the data's order, as predictions have them.

    Args:
        data_dir: data folder.
        split: name.
        names: of columns that are no histories, `label` among them, `history_length`
            for the number of clicks in the history that the data holds, and `weight`,
            which is 1 unless the data say otherwise; `timestamp`, if they have it.

    Returns:
        data frame with these columns.
    """
    folder = DataFolder(data_dir)
    spec = parse_spec(folder.schema(with_vocabularies=False))
    spec["history_length"] = tf.io.RaggedFeature(tf.int64, value_key=HISTORY_IMAGE)
    spec["weight"] = tf.io.RaggedFeature(tf.float32)
    spec["timestamp"] = tf.io.RaggedFeature(tf.int64)
    spec = {name: spec[name] for name in names}
    dataset = folder.records(split).batch(BATCH_SIZE)
    batches, weighted = [], "weight" not in names or folder.weighted
    with folder.report_damage():
        for records in dataset:
            columns = tf.io.parse_example(records, spec)
            if "history_length" in columns:
                columns["history_length"] = columns["history_length"].row_lengths()
            label = columns["label"]
            if not weighted:
                columns["weight"] = tf.ones_like(label, tf.float32)
            batches.append(pd.DataFrame(_by_impression(columns, label.value_rowids())))
    return pd.concat(batches, ignore_index=True)


def _by_impression(columns, request):
    """Arrays `[N]` of parsed columns; `request` is each impression's, int64 `[N]`."""
    return {
        name: (
            column.flat_values
            if isinstance(column, tf.RaggedTensor)
            else tf.gather(column, request)
        ).numpy()
        for name, column in columns.items()
    }


def thirds(values):
    """Masks of the lowest and of the highest third of `values`, and their bounds.

    Equal values stay together. Where one value fills the middle third and more, it
    belongs to the highest third, or to the lowest if there is nothing below it.

    Args:
        values: numbers, shape `[N]`.

    Returns:
        `(lowest, highest)`: bool `[N]` each.
    """
    low, high = np.quantile(values, [1 / 3, 2 / 3], method="lower")
    lowest, highest = values <= low, values >= high
    if low == high:
        if (values < low).any():
            lowest = values < low
        else:
            highest = values > high
    return lowest, highest


def make_slices(test, train_items):
    """Masks of the test split's slices.

    An item that the training split does not show is cold. The impressions of the others
    are cut into thirds by how often it shows the item; all are by the length of their
    histories.

    Args:
        test: data frame with `history_length`, and `item_id` if the data has it.
        train_items: the training split's `item_id`s, or `None`.

    Returns:
        dict from the slice's name, with its bound, to a bool array `[N]`.
    """
    slices = {}
    if train_items is not None:
        counts = pd.Series(train_items).value_counts()
        shown = test.item_id.map(counts).fillna(0).to_numpy()
        slices["cold items (0 training impressions)"] = shown == 0
        warm = shown > 0
        if warm.any():
            masks = thirds(shown[warm])
            for name, part in zip(("rare", "popular"), masks, strict=True):
                mask = np.zeros(len(test), bool)
                mask[warm] = part
                slices[
                    f"{name} items ({_bounds(shown[mask])} training impressions)"
                ] = mask
    lengths = test.history_length.to_numpy()
    for name, mask in zip(("short", "long"), thirds(lengths), strict=True):
        slices[f"{name} histories ({_bounds(lengths[mask])} clicks)"] = mask
    return slices


def _bounds(values):
    if not len(values):
        return "no"
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def read_slices(data_dir):
    """The test split's impressions, and the masks of its slices.

    Args:
        data_dir: data folder.

    Returns:
        `(test, slices)`: data frame with `row`, `user_key`, `label` and `weight` in the
        data's order, and `make_slices`' dict.
    """
    schema = DataFolder(data_dir).schema(with_vocabularies=False)
    items = ["item_id"] if "item_id" in schema else []
    names = ["row", "user_key", "label", "weight", "history_length", *items]
    test = read_columns(data_dir, "test", names)
    train_items = None
    if items:
        train_items = read_columns(data_dir, "train", ["label", *items]).item_id
    return test, make_slices(test, train_items)


def slice_auc(test, scores):
    """AUC of each run on a slice.

    Args:
        test: data frame of the slice with `label` and `weight`.
        scores: float, shape `[runs, N]`.

    Returns:
        list of floats, or `None` if the slice has one label only.
    """
    if test.label[test.weight > 0].nunique() < 2:
        return None
    weights = {"sample_weight": test.weight}
    return [float(roc_auc_score(test.label, run, **weights)) for run in scores]
