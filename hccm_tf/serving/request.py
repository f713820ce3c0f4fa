"""Requests made of real impressions, for warm-up and as an example."""

import numpy as np
import tensorflow as tf

from hccm_tf.data.catalogue import image_names
from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.image_inputs import SIDES
from hccm_tf.serving.signatures import impression_spec

IMAGES = ("image", HISTORY_IMAGE)
EMPTY = {tf.string: b"", tf.int64: 0, tf.float32: 0.0}


class Impressions:
    """The first impressions of a split, with images by name.

    Args:
        data_dir: data folder.
        split: name.
        count: number of impressions at most.

    Attributes:
        records: list of serialized `tf.train.Example`s.
        rows: list of dicts, column → list of values.
    """

    def __init__(self, data_dir, split, count):
        records = tf.data.TFRecordDataset(DataFolder(data_dir).files(split)).take(count)
        self.records = list(records.as_numpy_iterator())
        self.rows = [_values(record) for record in self.records]
        keys = {key for row in self.rows for name in IMAGES for key in row[name]}
        names = image_names(data_dir, keys)
        for row in self.rows:
            for name in IMAGES:
                row[name] = [(names.get(key) or "").encode() for key in row[name]]


def _values(record):
    """Name → list of values of a serialized `tf.train.Example`."""
    features = tf.train.Example.FromString(record).features.feature
    kinds = {name: f.WhichOneof("kind") or "int64_list" for name, f in features.items()}
    return {name: list(getattr(features[name], kinds[name]).value) for name in kinds}


def impressions_request(rows, schema, with_images, sides=SIDES):
    """Tensors of `serving_default` for some `Impressions.rows`; name → array."""
    return _columns(rows, impression_spec(schema, with_images, sides=sides))


def rank_request(rows, schema, with_images, sides=SIDES):
    """Tensors of `rank`: the first row's user, and the candidates of all rows."""
    spec = impression_spec(schema, with_images, many_candidates=True, sides=sides)
    del spec["candidate_mask"]
    candidates = {f.name for f in schema.scalars if f.candidate} | {"image"}
    scalars = {
        name: tf.TensorSpec([None], value.dtype)
        for name, value in spec.items()
        if name in candidates
    }
    user = {name: value for name, value in spec.items() if name not in candidates}
    request = _columns(rows[:1], user)
    request.update({k: v[None] for k, v in _columns(rows, scalars).items()})
    request["candidate_mask"] = np.ones((1, len(rows)), bool)
    return request


def _columns(rows, spec):
    lengths = [len(row[HISTORY_IMAGE]) for row in rows]
    request = {}
    for name, value in spec.items():
        dtype = value.dtype.as_numpy_dtype
        if name == "history_length":
            request[name] = np.array(lengths, np.int64)
        elif value.shape.rank == 1:
            request[name] = np.array([row[name][0] for row in rows], dtype)
        else:
            # TensorFlow Serving merges no request that has an input without a value.
            shape = len(rows), max([1, *lengths])
            request[name] = np.full(shape, EMPTY[value.dtype], dtype)
            for place, row in enumerate(rows):
                request[name][place, : len(row[name])] = row[name]
    return request


def to_json(signature_name, request):
    """A request in the form of TensorFlow Serving's REST interface.

    Args:
        signature_name: string.
        request: name → array.

    Returns:
        dict `{"signature_name", "inputs"}` that JSON can hold.
    """

    def plain(value):
        if isinstance(value, list):
            return [plain(entry) for entry in value]
        return value.decode() if isinstance(value, bytes) else value

    inputs = {name: plain(value.tolist()) for name, value in request.items()}
    return {"signature_name": signature_name, "inputs": inputs}
