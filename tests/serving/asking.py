"""Asks the signatures of an export."""

import tensorflow as tf

from hccm_tf.serving.request import impressions_request

ALL = {
    "serving_default",
    "rank",
    "serve_examples",
    "regress",
    "explain",
    "encode_images",
    "image_keys",
}
ROWS = 12


def ask(signature, request):
    """Name → array, of the answer to a request of whatever `tf.constant` takes."""
    specs = signature.structured_input_signature[1]
    tensors = {k: tf.constant(v, specs[k].dtype) for k, v in request.items()}
    return {name: value.numpy() for name, value in signature(**tensors).items()}


def one_row_each(rows, schema, with_images):
    """The impressions that `rank_request` asks about, one row for each candidate."""
    users = [feature.name for feature in schema.scalars if not feature.candidate]
    users += [name for name in rows[0] if name.startswith("history_")]
    rows = [row | {name: rows[0][name] for name in users} for row in rows]
    return impressions_request(rows, schema, with_images)
