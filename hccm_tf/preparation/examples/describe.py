"""Describes a few impressions of a data folder as people read them."""

import itertools

import numpy as np
from etils import epy
from google.protobuf.message import DecodeError

from hccm_tf.data import ids
from hccm_tf.data.catalogue import image_names
from hccm_tf.data.feature import HISTORY, HISTORY_IMAGE, MISSING_INTEGER
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.files import is_remote, join

with epy.lazy_imports():
    import tensorflow as tf

FIRST = ("user_id", "item_id", "category", "image", "timestamp", "label")


def _to_values(feature):
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


def _read_examples(data_dir, split, count):
    """The first examples of a split, dicts from name to list of values."""
    examples = []
    try:
        records = tf.data.TFRecordDataset(DataFolder(data_dir).files(split)).take(count)
        for record in records.as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            examples.append({name: _to_values(f) for name, f in features.items()})
    except (tf.errors.OpError, DecodeError) as error:
        raise InputError(
            f"{data_dir}: record {len(examples) + 1} of split {split} cannot be read; "
            "see python -m tfrecords_tools.validate"
        ) from error
    return examples


def _image_paths(data_dir, examples, image_dir):
    """Image key → path of the picture, for the images of some examples."""
    names = ("image", HISTORY_IMAGE)
    keys = {key for example in examples for n in names for key in example.get(n, ())}
    paths = {
        key: name if is_remote(name) else join(image_dir, name)
        for key, name in image_names(data_dir, keys - {ids.NO_IMAGE}).items()
    }
    return {ids.NO_IMAGE: "none", **paths}


def _to_text(name, value, paths):
    """`name value` as people read it."""
    if name == "image":
        value = paths.get(value, f"of key {value}, which is not in the catalogue")
    elif value == MISSING_INTEGER:
        value = "missing"
    elif name == "timestamp":
        value = f"{np.datetime64(value, 's')} UTC".replace("T", " ", 1)
    elif isinstance(value, bytes):
        value = value.decode(errors="replace") or "missing"
    elif isinstance(value, float):
        value = f"{value:g}"
    return f"{name} {value}"


def describe(data_dir, split="train", count=3, image_dir=""):
    """Describes the first impressions of a split.

    Args:
        data_dir: data folder.
        split: its name.
        count: number of impressions.
        image_dir: folder of the images.

    Returns:
        list of str, lines.

    Raises:
        InputError: if the folder cannot be read.
    """
    sequences = DataFolder(data_dir).schema(with_vocabularies=False).sequences
    names = (*(feature.name for feature in sequences), HISTORY_IMAGE)
    histories = list(dict.fromkeys(names))
    examples = _read_examples(data_dir, split, count)
    if not examples:
        raise InputError(f"{data_dir}: split {split} is empty")
    paths = _image_paths(data_dir, examples, image_dir)
    lines = []
    for number, example in enumerate(examples, start=1):
        lines.append(f"{split}, impression {number}")
        names = [name for name in FIRST if name in example]
        if "user_id" not in example:
            names.insert(0, "user_key")
        others = set(example) - {*names, "user_key", *histories}
        for name in (*names, *sorted(others)):
            for value in example.get(name, ()):
                lines.append(f"  {_to_text(name, value, paths)}")
        columns = [example.get(name, ()) for name in histories]
        clicks = list(itertools.zip_longest(*columns, fillvalue=MISSING_INTEGER))
        lines.append(f"  history of {len(clicks)} clicks, newest last")
        for click in clicks:
            texts = (
                _to_text(name.removeprefix(HISTORY), value, paths)
                for name, value in zip(histories, click, strict=True)
            )
            lines.append(f"    {', '.join(texts)}")
    return lines
