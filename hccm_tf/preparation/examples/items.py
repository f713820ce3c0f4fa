"""Checks the catalogue and brings it into the form in which it is joined to the log."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epy

from hccm_tf.data import ids
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.job import write_json
from hccm_tf.preparation.examples.log_values import column_keys, to_log_type
from hccm_tf.preparation.image_names import distinct_images

with epy.lazy_imports():
    import tensorflow as tf

ITEM_COLUMNS = ["item_id", "image", "category"]


def _image_keys(images, work):
    """The key of each item's image, int64 array; leaves warnings."""
    _, left_out, warnings = distinct_images(images)
    if warnings:
        write_json(work / "warnings-images.json", warnings)
    images = pc.if_else(pc.is_in(images, left_out), "", images)
    names = images.to_numpy(zero_copy_only=False).astype(object)
    return ids.image_keys(tf.constant(names, tf.string)).numpy()


def _bad_row(column, bad, problem):
    if bad.any():
        raise InputError(
            f"items: column {column}, row {int(np.argmax(bad)) + 1}: {problem}. "
            f"Received: {np.count_nonzero(bad)} such rows"
        )


def prepare_items(items, output, work):
    """Writes `catalogue.parquet` of the data set and the table that the log joins.

    The catalogue is held in memory once here; workers map the file.

    Args:
        items: Arrow table `item_id, image, category` and attributes.
        output: folder of the data set.
        work: folder that gets `items.arrow`: the columns in their log types, sorted by
            `key`, the key of the item id, with `image` as its key.

    Returns:
        `(types, image_is_item)`: name → Arrow type of the columns, and whether no two
        items share an image.

    Raises:
        InputError: names column and row of what is wrong.
    """
    columns = {}
    for name in items.column_names:
        try:
            columns[name] = to_log_type(name, items[name].combine_chunks())
        except InputError as error:
            raise InputError(f"items: {error}") from error
    item_id = columns["item_id"]
    empty = items["item_id"].is_null().to_numpy()
    if pa.types.is_string(item_id.type):
        empty |= np.asarray(item_id.to_numpy(zero_copy_only=False) == "", bool)
    _bad_row("item_id", empty, "empty")
    frame = item_id.to_pandas()
    _bad_row("item_id", frame.duplicated().to_numpy(), "a repeated id")
    # Items of one key are told apart by their ids, see `find_items`.
    keys = column_keys(item_id)
    order = np.argsort(keys, kind="stable")
    images = columns["image"].cast(pa.string())
    image_key = _image_keys(images, work)
    used = image_key[image_key != ids.NO_IMAGE]
    catalogue = {
        "item_id": item_id,
        "image": images,
        "image_key": image_key,
        "category": columns["category"],
    }
    # What else the items have, with which `hccm_tf.predict` joins another log.
    catalogue |= {n: c for n, c in columns.items() if n not in catalogue}
    pq.write_table(pa.table(catalogue), DataFolder(output).catalogue_file)
    columns["image"] = pa.array(image_key)
    table = pa.table(columns).take(order).append_column("key", pa.array(keys[order]))
    with pa.ipc.new_file(str(work / "items.arrow"), table.schema) as writer:
        writer.write_table(table)
    types = {name: column.type for name, column in columns.items()}
    return types, len(np.unique(used)) == len(used)
