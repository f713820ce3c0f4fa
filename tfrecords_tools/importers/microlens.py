"""Reads MicroLens-1M of the MM-CTR challenge (WWW 2025) into a shop's tables.

    python -m tfrecords_tools.import_microlens --input=MicroLens_1M_x1 --output_dir=SHOP

`--input` is the folder with `train.parquet`, `valid.parquet` and `item_info.parquet`.
SHOP gets `items.parquet`, whose images are named as the covers in `item_images.rar`
(`<item_id>.jpg`: unpack it and give its folder as --image_dir), and
`impressions.parquet`.

- The dataset has no times: each impression brings its history, `history_item_id`, the
  non-zero values of `item_seq`, oldest first. A user's impressions with the same one
  are a request: a click and the negatives that were drawn for it.
- `category` is the first tag of an item that is not padding, or 0.
- `valid.parquet` is cut in two, by a hash of the user, into validation and test. The
  challenge's `test.parquet` has no labels; one with labels is the test split.

Tables are read and written in record batches: memory does not grow with them.
"""

import collections
import functools
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from absl import flags

from hccm_tf.atomic import new_folder
from hccm_tf.commands import run
from hccm_tf.errors import InputError
from hccm_tf.progress import advance, progress
from tfrecords_tools.importers.malformed import MALFORMED
from tfrecords_tools.importers.negatives import hash_ids
from tfrecords_tools.next_steps import say_preparation

BATCH_ROWS = 1 << 16
ITEM_COLUMNS = ["item_id", "item_tags"]
LEVELS = ["likes_level", "views_level"]
LOG_COLUMNS = ["user_id", "item_id", "item_seq", *LEVELS, "label"]
ITEMS = pa.schema(
    [("item_id", pa.int64()), ("image", pa.string()), ("category", pa.int64())]
)
IMPRESSIONS = pa.schema(
    [
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("label", pa.int64()),
        ("split", pa.string()),
        *((name, pa.int64()) for name in LEVELS),
        ("history_item_id", pa.list_(pa.int64())),
    ]
)


def _read_batches(path, columns, convert):
    """Yields the record batches of a Parquet file's `columns`, converted."""
    try:
        file = pq.ParquetFile(path)
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise InputError(
                f"{path}: no column {', '.join(missing)}. Received columns: "
                f"{', '.join(file.schema_arrow.names)}"
            )
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            yield convert(batch)
            advance(len(batch))
    except InputError:
        raise
    except (OSError, *MALFORMED) as error:
        raise InputError(f"{path}: {error}") from error


def remove_padding(lists):
    """Removes the zeros of each list and keeps the order of the rest.

    Args:
        lists: Arrow array of lists of integers; a missing list is an empty one.

    Returns:
        `pyarrow.ListArray` of int64.
    """
    values, parents = pc.list_flatten(lists), pc.list_parent_indices(lists)
    keep = pc.fill_null(pc.not_equal(values, 0), False)
    sizes = np.bincount(parents.filter(keep), minlength=len(lists))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values.filter(keep).cast(pa.int64()))


def _first(lists):
    """The first value of each list, 0 for an empty one."""
    offsets = lists.offsets.to_numpy()
    first = np.zeros(len(lists), np.int64)
    filled = offsets[:-1] < offsets[1:]
    first[filled] = lists.values.to_numpy()[offsets[:-1][filled]]
    return first


def _to_items(batch):
    # Item 0 stands for padding.
    batch = batch.filter(pc.not_equal(batch["item_id"], 0))
    item_id = batch["item_id"].cast(pa.int64())
    image = pc.binary_join_element_wise(item_id.cast(pa.string()), ".jpg", "")
    category = pa.array(_first(remove_padding(batch["item_tags"])))
    return pa.record_batch([item_id, image, category], schema=ITEMS)


def _to_impressions(batch, split):
    """Converts a batch of the log; `split` `None` is a half for each user."""
    if split is None:
        half = hash_ids(batch["user_id"].to_numpy(zero_copy_only=False)) % 2
        splits = pa.array(np.where(half == 0, "validation", "test"))
    else:
        splits = pa.repeat(split, len(batch))
    columns = {name: batch[name] for name in batch.schema.names}
    columns["split"] = splits
    columns["history_item_id"] = remove_padding(batch["item_seq"])
    arrays = [columns[field.name].cast(field.type) for field in IMPRESSIONS]
    return pa.record_batch(arrays, schema=IMPRESSIONS)


def _is_labelled(path):
    """Whether a file has labels: a column of zeros and ones, both of them."""
    try:
        labels = _read_batches(path, ["label"], lambda batch: batch["label"].unique())
        return {value for batch in labels for value in batch.to_pylist()} == {0, 1}
    except InputError:
        return False


def import_microlens(input_dir, output_dir):
    """Writes the shop of MicroLens-1M.

    Args:
        input_dir: folder with `train.parquet`, `valid.parquet`, `item_info.parquet`.
        output_dir: folder to write.

    Returns:
        dict split → number of impressions.

    Raises:
        InputError: if a file is missing or has other columns.
    """
    source = pathlib.Path(input_dir)
    files = {"train": "train", "valid": None}
    if _is_labelled(source / "test.parquet"):
        files = {"train": "train", "valid": "validation", "test": "test"}
    num_items, counts = 0, collections.Counter()
    with new_folder(output_dir) as folder, progress("reading", None, "row"):
        with pq.ParquetWriter(folder / "items.parquet", ITEMS) as writer:
            path = source / "item_info.parquet"
            for batch in _read_batches(path, ITEM_COLUMNS, _to_items):
                writer.write_batch(batch)
                num_items += len(batch)
        with pq.ParquetWriter(folder / "impressions.parquet", IMPRESSIONS) as writer:
            for name, split in files.items():
                convert = functools.partial(_to_impressions, split=split)
                path = source / f"{name}.parquet"
                for batch in _read_batches(path, LOG_COLUMNS, convert):
                    writer.write_batch(batch)
                    counts.update(batch["split"].to_pylist())
    print(f"{num_items} items, impressions: {dict(counts)} -> {output_dir}")
    return dict(counts)


FLAGS = flags.FLAGS


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string("input", None, "The folder of the data set.", required=True)
    flags.DEFINE_string("output_dir", None, "The folder SHOP to write.", required=True)


def main(words):
    """Runs the command line."""
    del words
    import_microlens(FLAGS.input, FLAGS.output_dir)
    say_preparation(FLAGS.output_dir, "--image_dir=PHOTOS")


if __name__ == "__main__":
    run(main, define_flags)
