"""What the item table tells a model, and what examples say instead."""

import tensorflow as tf

from hccm_tf.data import ids
from hccm_tf.data.feature import HISTORY
from hccm_tf.data.item_features import of_items
from hccm_tf.serving.checks import require_equal
from hccm_tf.serving.inputs import request_name


def item_columns(schema):
    """The features of items that an item table has, list of `Feature`."""
    return [feature for feature in of_items(schema) if not feature.is_sequence]


def spec(schema):
    """Named inputs of `encode_items`: raw columns of items `[U]`."""
    features = [schema["item_id"], *item_columns(schema)]
    names = {request_name(feature.name): feature.dtype for feature in features}
    return {name: tf.TensorSpec([None], dtype, name) for name, dtype in names.items()}


def parse_spec(schema):
    """With which `tf.io.parse_example` reads what examples give of items, if any."""
    types = {feature.name: tf.as_dtype(feature.dtype) for feature in of_items(schema)}
    return {
        name: tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        for name, dtype in types.items()
    }


def encode(schema, request):
    """Raw columns of items `[U]` in the form in which a table has them, dict.

    Those that are embedded by their indices; numbers as they are, missing ones as the
    mean, which is what a model takes them for.
    """
    encoded = {"item_id": ids.to_keys(request["item_id"])}
    for feature in item_columns(schema):
        name = request_name(feature.name)
        values = request[name]
        # TensorFlow divides by the deviation in some graphs and multiplies in others:
        # numbers keep their bits if they are standardised where requests' are.
        if feature.is_float:
            is_there = tf.math.is_finite(values)
            encoded[name] = tf.where(is_there, values, feature.mean)
        else:
            encoded[name] = schema.index(feature.name, values)
    return encoded


def given_lengths(schema, raw, lengths=None, clicks=False):
    """Row lengths of what examples give of items, `lengths` where they give nothing.

    Args:
        schema: `Schema`.
        raw: name → tensor; of what is given, ragged `[B, (n)]`.
        lengths: int64 `[B]`.
        clicks: whether of clicks, and not of candidates.

    Returns:
        dict name → int64 `[B]`, of the features `of_items` that are in `raw`.
    """
    found = {
        feature.name: raw[feature.name].row_lengths()
        for feature in of_items(schema)
        if feature.is_sequence == clicks and feature.name in raw
    }
    return {name: tf.where(n == 0, lengths, n) for name, n in found.items()}


def look_up(schema, table, raw):
    """The model's inputs of the features `of_items`, by their inputs' names.

    Args:
        schema: `Schema`.
        table: `ItemTable`.
        raw: dict of the raw columns: `item_id` and, where there are histories of items'
            columns, `history_item_id`, as `Schema.index_all` takes them; and, of
            examples, columns of items, ragged `[B, (n)]`, which count where they are
            not empty.
    """
    rows = {"item_id": table.find(raw["item_id"])}
    if any(feature.is_sequence for feature in of_items(schema)):
        clicks = raw[HISTORY + "item_id"]
        given = given_lengths(schema, raw, clicks.row_lengths(), clicks=True)
        lengths = [clicks.row_lengths(), *given.values()]
        with require_equal(lengths, [HISTORY + "item_id", *given], "lengths"):
            clicks = schema.truncate(clicks)
        rows["clicks"] = clicks.with_flat_values(table.find(clicks.flat_values))
    inputs = {}
    for feature in of_items(schema):
        shared = schema[feature.shares or feature.name]
        given = raw.get(feature.name)
        if feature.is_sequence:
            found = table.look_up(shared.input_name, rows["clicks"].flat_values)
            found = schema.pad_history(rows["clicks"].with_flat_values(found))
            given = None if given is None else schema.truncate(given)
        else:
            found = table.look_up(shared.input_name, rows["item_id"])
            found = schema.index(feature.name, found) if feature.is_float else found
        if given is not None:
            index = schema.index(shared.name, given.flat_values)
            found = _given_or(given.with_flat_values(index), found)
        inputs[feature.input_name] = found
    return inputs


def _given_or(given, values):
    """Values `[B]` or `[B, N]`, in rows where some are given, `[B, (n)]`, those."""
    wide = values[:, None] if values.shape.rank == 1 else values
    dense, is_given = given.to_tensor(shape=tf.shape(wide)), given.row_lengths() > 0
    chosen = tf.where(is_given[:, None], dense, wide)
    return chosen[:, 0] if values.shape.rank == 1 else chosen
