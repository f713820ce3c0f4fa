"""Asks the signatures of an export."""

import numpy as np
import tensorflow as tf

from hccm_tf.data.image_inputs import SIDES
from hccm_tf.serving.request import impressions_request

ALL = {
    "serving_default",
    "rank",
    "rank_examples",
    "serve_examples",
    "regress",
    "explain",
    "encode_images",
    "image_keys",
    "encode_items",
}
ROWS = 12


def ask(signature, request):
    """Name → array, of the answer to a request of whatever `tf.constant` takes."""
    specs = signature.structured_input_signature[1]
    tensors = {k: tf.constant(v, specs[k].dtype) for k, v in request.items()}
    return {name: value.numpy() for name, value in signature(**tensors).items()}


def one_row_each(requests, schema, with_images, sides=SIDES):
    """The impressions that `rank_request` asks about, one row for each candidate."""
    users = [feature.name for feature in schema.scalars if not feature.candidate]
    users += [name for name in requests[0][0] if name.startswith("history_")]
    rows = [
        row | {name: request[0][name] for name in users}
        for request in requests
        for row in request
    ]
    return impressions_request(rows, schema, with_images, sides)


def record_of(examples, schema):
    """A request's record of those of impressions: the first one's user, all rows."""
    request, *others = map(tf.train.Example.FromString, examples)
    names = {feature.name for feature in schema.scalars if feature.candidate}
    names |= {"label", "row", "image"}
    for example in others:
        for name in names:
            feature = example.features.feature[name]
            request.features.feature[name].MergeFrom(feature)
    return request.SerializeToString()


def cut(values, sizes):
    """A list, cut into lists of some lengths."""
    ends = np.cumsum(sizes)
    return [values[end - size : end] for end, size in zip(ends, sizes, strict=True)]
