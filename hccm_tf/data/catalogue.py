"""The catalogue of a data folder."""

import pathlib

import pyarrow.parquet as pq

from hccm_tf.errors import InputError

COLUMNS = ["item_id", "image", "image_key", "category"]


def read_catalogue(data_dir):
    """Arrow table `item_id, image, image_key, category`, one row for each item."""
    path = pathlib.Path(data_dir) / "catalogue.parquet"
    try:
        return pq.read_table(path).select(COLUMNS)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: not a catalogue ({error}); build the examples again"
        ) from error
