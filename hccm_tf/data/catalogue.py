"""The catalogue of a data folder."""

import numpy as np
import tensorflow as tf

from hccm_tf.errors import InputError
from hccm_tf.files import join, read_parquet

COLUMNS = ["item_id", "image", "image_key", "category"]


def read_catalogue(data_dir):
    """Arrow table `item_id, image, image_key, category`, one row for each item."""
    path = join(data_dir, "catalogue.parquet")
    try:
        return read_parquet(path, COLUMNS)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: not a catalogue ({error}); build the examples again"
        ) from error


def image_categories(schema, catalogue):
    """Each item's image key, int64 `[N]`, and category index, int32 `[N]`.

    The index is 1 for all if the schema has no categories.
    """
    category = np.ones(len(catalogue), np.int32)
    if "category" in schema:
        values = tf.constant(catalogue["category"].to_numpy())
        category = schema.index("category", values).numpy()
    return catalogue["image_key"].to_numpy(), category
