"""What the catalogue of a data folder says of images."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epy

from hccm_tf.data.folder import DataFolder
from hccm_tf.data.ids import NO_IMAGE

with epy.lazy_imports():
    import tensorflow as tf


def image_names(data_dir, keys):
    """Key → name of those of some images that the catalogue has.

    Args:
        data_dir: data folder.
        keys: image keys, int.
    """
    table = DataFolder(data_dir).catalogue().select(["image_key", "image"])
    # Only what is asked for becomes Python objects: a catalogue may be large. A name
    # may have no key, because another one has it.
    wanted = pa.array(set(keys) - {NO_IMAGE}, pa.int64())
    table = table.filter(pc.is_in(table["image_key"], wanted))
    columns = (table[name].to_pylist() for name in table.column_names)
    return dict(zip(*columns, strict=True))


def image_categories(schema, catalogue):
    """Each item's image key, int64 `[N]`, and category index, int32 `[N]`.

    The index is 1 for all if the schema has no categories.
    """
    category = np.ones(len(catalogue), np.int32)
    if "category" in schema:
        values = tf.constant(catalogue["category"].to_numpy())
        category = schema.index("category", values).numpy()
    return catalogue["image_key"].to_numpy(), category
