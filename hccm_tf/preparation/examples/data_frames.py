"""Data folders made of data frames of impressions."""

import numpy as np
import pandas as pd

from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples

KEY = ["user_id", "item_id", "timestamp"]


def check_items(items, frame):
    """Raises an `InputError` if impressions show items that the catalogue lacks."""
    unknown = ~frame.item_id.isin(items.item_id)
    if unknown.any():
        raise InputError(
            f"item_id: {unknown.sum()} impressions of items that `items` does not "
            f"hold; the first: {frame.item_id[unknown].iloc[0]}"
        )


def build_training(items, frame, path):
    """Splits `train` and `validation`, by default the newest tenth.

    Args:
        items: data frame, the catalogue.
        frame: data frame of impressions with `label` and, optionally, `split`.
        path: data folder to make.
    """
    if "split" not in frame:
        newest = frame.timestamp.rank(method="min", pct=True) > 0.9
        frame = frame.assign(split=np.where(newest, "validation", "train"))
    _build(items, frame, path, splits=("train", "validation"))


def build_test(items, frame, log, schema, path):
    """Split `test`, whose histories also see the clicks of an earlier log.

    Args:
        items: data frame, the catalogue.
        frame: data frame of impressions; with `label`, an impression that the log holds
            too brings its own click.
        log: data frame of impressions with `label`.
        schema: `Schema` that the model was fitted with.
        path: data folder to make.
    """
    clicks = log[log.label == 1].assign(split="history")
    if "label" in frame:
        again = pd.MultiIndex.from_frame(clicks[KEY]).isin(
            pd.MultiIndex.from_frame(frame[KEY])
        )
        clicks = clicks[~again]
    frame = frame.assign(split="test", label=frame.get("label", 0))
    log = pd.concat([clicks, frame], ignore_index=True)
    _build(items, log, path, splits=("test",), schema=schema)


def _build(items, frame, path, **arguments):
    build_examples(items, frame, path, num_shards=1, **arguments)
