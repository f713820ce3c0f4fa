"""The catalogue of a data folder."""

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
