"""Checks the catalogue and brings it into the form in which it is joined to the log."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epy

from hccm_tf.data import ids
from hccm_tf.data.feature import MISSING
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.preparation.examples.job import write_json
from hccm_tf.preparation.examples.log_values import (
    FEATURE_DTYPES,
    PROBLEMS,
    column_keys,
    convert,
)
from hccm_tf.preparation.image_names import distinct_images

with epy.lazy_imports():
    import tensorflow as tf


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


def check_item_ids(item_id):
    """Raises `InputError` if an id is missing or there twice.

    Args:
        item_id: Arrow array of the catalogue's ids, int64 or string.
    """
    empty = pc.equal(item_id, MISSING[FEATURE_DTYPES[item_id.type]])
    _bad_row("item_id", empty.to_numpy(zero_copy_only=False), "empty")
    twice = item_id.to_pandas().duplicated().to_numpy()
    if twice.any():
        first = item_id[int(np.argmax(twice))].as_py()
        problem = f"a repeated id, {first!r}: keep one row for each item"
        _bad_row("item_id", twice, problem)


def prepare_items(items, types, output, work):
    """Writes `catalogue.parquet` of the data set and the table that the log joins.

    The catalogue is held in memory once here; workers map the file.

    Args:
        items: Arrow table `item_id, image, category` and attributes.
        types: name → what each becomes, one of `FEATURE_DTYPES`.
        output: folder of the data set.
        work: folder that gets `items.arrow`: the columns in these types, sorted by
            `key`, the key of the item id, with `image` as its key.

    Returns:
        Whether no two items share an image.

    Raises:
        InputError: names column and row of what is wrong.
    """
    columns = {}
    for name in items.column_names:
        with errors_begin_with("items: "):
            columns[name], bad = convert(
                name, items[name].combine_chunks(), types[name]
            )
        _bad_row(name, bad, PROBLEMS[types[name]])
    item_id = columns["item_id"]
    check_item_ids(item_id)
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
    return len(np.unique(used)) == len(used)
