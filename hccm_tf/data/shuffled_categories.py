"""A control: the image encoder is told the category of another item."""

import functools

import numpy as np
import tensorflow as tf

from hccm_tf.data import ids
from hccm_tf.data.catalogue import image_categories
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError


def shuffled_categories(data_dir, schema, images, seed):
    """Deals a catalogue's categories out to other items' images.

    Each (image, category) of the catalogue gets the category of another one, the same
    throughout; a category occurs as often as before. What is not in the catalogue keeps
    its own. Only the image encoder is to be told: ids and other features stay.

    Args:
        data_dir: data folder, for its catalogue.
        schema: `hccm_tf.data.schema.Schema`, with the feature `category`.
        images: `hccm_tf.data.image_store.ImageStore`.
        seed: int.

    Returns:
        Function in graph operations from store rows, int64 `[U]`, and the categories of
        their items, int32 `[U]`, to the categories to tell, int32 `[U]`.
    """
    if "category" not in schema:
        raise InputError("shuffle_categories: the schema has no feature category")
    keys, categories = image_categories(schema, DataFolder(data_dir).catalogue())
    rows = images.find(keys).numpy()
    # One number for the pair, as it has no other.
    base = schema.num_rows("category")
    pairs = np.unique((rows * base + categories)[rows > 0])
    dealt = np.random.default_rng(seed).permutation(pairs % base).astype(np.int32)
    return functools.partial(_tell, pairs, dealt, base)


def _tell(pairs, dealt, base, rows, category):
    place = ids.find(pairs, rows * base + tf.cast(category, tf.int64))
    told = tf.gather(dealt, tf.maximum(place, 0))
    return tf.where(place < 0, category, told)
