"""Requests made of real impressions, for warm-up and as an example."""

import numpy as np
import tensorflow as tf

from hccm_tf.data.catalogue import image_names
from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.image_inputs import SIDES
from hccm_tf.data.parsing import candidate_columns
from hccm_tf.errors import InputError
from hccm_tf.serving.inputs import impression_spec, request_name

IMAGES = ("image", HISTORY_IMAGE)
EMPTY = {tf.string: b"", tf.int64: 0, tf.float32: 0.0}


class Impressions:
    """The first impressions of a split, and the requests that they are of.

    Args:
        data_dir: data folder.
        split: name.
        count: number of impressions at most.

    Attributes:
        rows: list of dicts, column → list of values, with images by name: each
            impression with its request's user and history.
        examples: list of serialized `tf.train.Example`s of one candidate, of `rows`.
        requests: list of lists of such rows: whole requests, so that the last may have
            more impressions than are left of `count`.
        records: list of serialized `tf.train.Example`s, those of `requests`.
    """

    def __init__(self, data_dir, split, count):
        folder = DataFolder(data_dir)
        columns = candidate_columns(folder.schema(with_vocabularies=False))
        self.records, self.requests, self.examples = [], [], []
        for record in folder.records(split).as_numpy_iterator():
            if len(self.examples) >= count:
                break
            examples = list(_impressions(record, columns))
            self.records.append(record)
            self.requests.append([_values(example) for example in examples])
            self.examples += [example.SerializeToString() for example in examples]
        rows = [row for request in self.requests for row in request]
        keys = {key for row in rows for name in IMAGES for key in row[name]}
        names = image_names(data_dir, keys)
        for row in rows:
            for name in IMAGES:
                row[name] = [(names.get(key) or "").encode() for key in row[name]]
        self.rows, self.examples = rows[:count], self.examples[:count]

    def requests_to_rank(self):
        """The requests or, of a log of single impressions, one of many candidates.

        It is what the first impression's user could have been shown.
        """
        if any(len(rows) > 1 for rows in self.requests):
            return self.requests
        return [self.rows]


def _impressions(record, columns):
    """Messages of one candidate each, of a record.

    Args:
        record: serialized `tf.train.Example` of a request.
        columns: set of names, of which each candidate has a value of its own.
    """
    request = tf.train.Example.FromString(record)
    for place in range(len(_list(request.features.feature["label"]))):
        example = tf.train.Example.FromString(record)
        features = example.features.feature
        for name in columns & set(features):
            values = _list(features[name])
            values[:] = [values[place]]
        yield example


def _list(feature):
    """The values of a `tf.train.Feature`."""
    return getattr(feature, feature.WhichOneof("kind") or "int64_list").value


def _values(example):
    """Name → list of values of a `tf.train.Example`."""
    return {name: list(_list(f)) for name, f in example.features.feature.items()}


def impressions_request(rows, schema, with_images, sides=SIDES):
    """Tensors of `serving_default` for some `Impressions.rows`; name → array."""
    spec = impression_spec(schema, with_images, sides=sides)
    return _inputs(rows, spec, _column_of(schema))


def rank_request(requests, schema, with_images, sides=SIDES):
    """Tensors of `rank`; name → array.

    Args:
        requests: list of lists of `Impressions.rows`: of each request, the first row's
            user and the candidates of all rows.
        schema: `Schema` of the model.
        with_images: whether the model takes images.
        sides: of `hccm_tf.data.image_inputs.SIDES`, whose images it takes.

    Raises:
        InputError: if a request has no candidate, which no server can merge.
    """
    if not all(requests):
        place = [bool(rows) for rows in requests].index(False)
        raise InputError(f"requests: number {place}, from 0, has no candidate")
    spec = impression_spec(schema, with_images, many_candidates=True, sides=sides)
    del spec["candidate_mask"]
    column_of = _column_of(schema)
    of_candidates = {request_name(f.name) for f in schema.scalars if f.candidate}
    of_candidates.add("image")
    user = {name: value for name, value in spec.items() if name not in of_candidates}
    tensors = _inputs([rows[0] for rows in requests], user, column_of)
    sizes = np.array([len(rows) for rows in requests])
    mask = np.arange(sizes.max(initial=1)) < sizes[:, None]
    rows = [row for request in requests for row in request]
    for name in of_candidates & set(spec):
        dtype = spec[name].dtype
        tensors[name] = np.full(mask.shape, EMPTY[dtype], dtype.as_numpy_dtype)
        values = [row[column_of.get(name, name)][0] for row in rows]
        tensors[name][mask] = np.array(values, tensors[name].dtype)
    return {**tensors, "candidate_mask": mask}


def _column_of(schema):
    """Name of an input → name of the feature's column; `image` is there by itself."""
    return {request_name(feature.name): feature.name for feature in schema.features}


def _inputs(rows, spec, column_of):
    lengths = [len(row[HISTORY_IMAGE]) for row in rows]
    request = {}
    for name, value in spec.items():
        dtype, column = value.dtype.as_numpy_dtype, column_of.get(name, name)
        if name == "history_length":
            request[name] = np.array(lengths, np.int64)
        elif value.shape.rank == 1:
            request[name] = np.array([row[column][0] for row in rows], dtype)
        else:
            # TensorFlow Serving merges no request that has an input without a value.
            shape = len(rows), max([1, *lengths])
            request[name] = np.full(shape, EMPTY[value.dtype], dtype)
            for place, row in enumerate(rows):
                request[name][place, : len(row[column])] = row[column]
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
