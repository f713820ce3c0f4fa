"""Describes a few requests of a data folder as people read them."""

import itertools

import numpy as np
from etils import epy
from google.protobuf.message import DecodeError

from hccm_tf.data import ids
from hccm_tf.data.catalogue import image_names
from hccm_tf.data.feature import HISTORY, HISTORY_IMAGE, MISSING_INTEGER
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.parsing import candidate_columns
from hccm_tf.errors import InputError
from hccm_tf.files import is_remote, join

with epy.lazy_imports():
    import tensorflow as tf

FIRST = (
    *("user_id", "user_key", "timestamp"),
    *("label", "item_id", "category", "image"),
)


def _to_values(feature):
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


def _read_examples(data_dir, split, count):
    """The first examples of a split, dicts from name to list of values."""
    examples = []
    try:
        records = DataFolder(data_dir).records(split).take(count)
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


def _in_order(names):
    """Names as they are read: those of `FIRST`, then the others by the alphabet."""
    return [*(n for n in FIRST if n in names), *sorted(set(names) - set(FIRST))]


def _rows(example, names, paths, prefix=""):
    """A line for each value of some columns, a list each: candidates or clicks."""
    columns = [example.get(name, ()) for name in names]
    for values in itertools.zip_longest(*columns, fillvalue=MISSING_INTEGER):
        texts = (
            _to_text(name.removeprefix(prefix), value, paths)
            for name, value in zip(names, values, strict=True)
        )
        yield f"    {', '.join(texts)}"


def _describe_request(example, candidates, histories, paths):
    """Yields the lines of one example: its user and context, candidates, history.

    Args:
        example: dict from name to list of values.
        candidates: names of the columns that have a value for each candidate.
        histories: names of those that have one for each click.
        paths: see `_image_paths`.
    """
    candidates = [name for name in _in_order(candidates) if name in example]
    once = set(example) - {*candidates, *histories}
    if "user_id" in once:
        once.discard("user_key")
    # Most requests are of one second.
    if len(set(example.get("timestamp", ()))) == 1:
        once.add("timestamp")
        candidates.remove("timestamp")
    for name in _in_order(once):
        for value in example[name][:1]:
            yield f"  {_to_text(name, value, paths)}"
    for title, names, prefix in (
        ("candidates: {}", candidates, ""),
        ("history, oldest click first: {}", histories, HISTORY),
    ):
        lines = list(_rows(example, names, paths, prefix))
        yield f"  {title.format(len(lines))}"
        yield from lines


def describe(data_dir, split="train", count=3, image_dir=""):
    """Describes the first requests of a split.

    Args:
        data_dir: data folder.
        split: its name.
        count: number of requests.
        image_dir: folder of the images.

    Returns:
        list of str, lines.

    Raises:
        InputError: if the folder cannot be read.
    """
    schema = DataFolder(data_dir).schema(with_vocabularies=False)
    names = (*(feature.name for feature in schema.sequences), HISTORY_IMAGE)
    histories = list(dict.fromkeys(names))
    candidates = candidate_columns(schema)
    examples = _read_examples(data_dir, split, count)
    if not examples:
        raise InputError(f"{data_dir}: split {split} is empty")
    paths = _image_paths(data_dir, examples, image_dir)
    lines = []
    for number, example in enumerate(examples, start=1):
        lines.append(f"{split}, request {number}")
        lines += _describe_request(example, candidates, histories, paths)
    return lines
