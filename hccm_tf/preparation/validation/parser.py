"""Parses the records of a data folder into what is checked of them."""

import dataclasses
import functools

from etils import epy

from hccm_tf.data import ids
from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.parsing import (
    OPTIONAL_OF_CANDIDATES,
    candidate_columns,
    parse_spec,
)

with epy.lazy_imports():
    import tensorflow as tf


class Columns:
    """The columns of a data folder's records.

    Args:
        schema: `Schema`.
        optional: those of `OPTIONAL_OF_CANDIDATES` that there are.

    Attributes:
        spec: what `tf.io.parse_example` takes.
        histories: dict, name of a history → the column of a click that it holds.
        candidates: names of the columns with a value for each candidate.
    """

    def __init__(self, schema, optional):
        self.spec = parse_spec(schema, many_candidates=True)
        for name in optional:
            dtype = tf.as_dtype(OPTIONAL_OF_CANDIDATES[name])
            self.spec[name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        self.histories = {HISTORY_IMAGE: "image"}
        self.histories |= {f.name: f.shares for f in schema.sequences}
        candidates = candidate_columns(schema)
        self.candidates = [name for name in self.spec if name in candidates]


def _shares(raw, sizes, schema, known):
    """What is reported as a share of a split: name → number of impressions."""

    def count(mark):
        """Impressions of which a bool `[R]`, or one of the candidates, holds."""
        if isinstance(mark, tf.RaggedTensor):
            return tf.math.count_nonzero(mark.flat_values)
        return tf.reduce_sum(tf.where(mark, sizes, 0))

    def odd(feature):
        values, known = raw[feature.name], schema.known(feature.name)
        if isinstance(values, tf.RaggedTensor):
            return values.with_flat_values(feature.is_odd(values.flat_values, *known))
        return feature.is_odd(values, *known)

    image = raw["image"]
    shares = {
        "click rate": raw["label"] == 1,
        "without history": raw[HISTORY_IMAGE].row_lengths() == 0,
        "without image": image == ids.NO_IMAGE,
    }
    if "feature map" in known:
        missing = ids.find(known["feature map"], image.flat_values) < 0
        missing &= image.flat_values != ids.NO_IMAGE
        shares["image without feature map"] = image.with_flat_values(missing)
    for feature in schema.scalars:
        if feature.odd:
            shares[f"{feature.name} {feature.odd}"] = odd(feature)
    return {name: count(mark) for name, mark in shares.items()}


def _click_keys(columns):
    keys = (ids.to_keys(column) for column in columns)
    return functools.reduce(lambda left, right: left * ids.SPREAD + right, keys)


def make_parser(schema, columns, known):
    """Makes the graph function from serialized examples to what is checked of them.

    Args:
        schema: `Schema`.
        columns: its `Columns`.
        known: sorted keys by the names `"item_id"`, `"image"` and `"feature map"`, as
            far as they are known.

    Returns:
        Function from a string tensor, R requests with I candidates in all, to a dict of
        tensors. Of requests: int64 `[R]` `user`, `size`, the number of candidates, and
        `length` of the history; `[sum(length)]` `history`, keys of its clicks. Of
        candidates: int64 `[I]` `label`, `row` of the log, `item` (its key), `shown`
        (key of the click that the impression would be) and, if the data have it,
        `timestamp`; float32 `[I]` `weight`, likewise; `[I]` `received`, the item as it
        stands there; bool `[I]` `unknown`, whether the catalogue lacks it. And
        `shares`, name → the number of impressions of which it holds.
    """
    # Tensors of their own: keys inside the graph would meet its limit of 2 GB.
    known = {name: tf.constant(keys) for name, keys in known.items()}
    vocabularies = {n: tf.constant(keys) for n, keys in schema.vocabularies.items()}
    checks = {n: tf.constant(values) for n, values in schema.checks.items()}
    schema = dataclasses.replace(schema, vocabularies=vocabularies, checks=checks)
    by_item = "item_id" in schema and schema["item_id"].is_embedded
    item = "item_id" if by_item else "image"

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def parse(records):
        raw = tf.io.parse_example(records, columns.spec)
        for names in (columns.histories, columns.candidates):
            first, *others = (raw[name].row_splits for name in names)
            for splits in others:
                tf.debugging.assert_equal(splits, first)
        sizes = raw["label"].row_lengths()
        tf.debugging.assert_positive(sizes)

        def each(name):
            """A column's values of all candidates."""
            values = raw[name]
            if isinstance(values, tf.RaggedTensor):
                return values.flat_values
            return tf.repeat(values, sizes)

        parsed = {
            "user": raw["user_key"],
            "size": sizes,
            "length": raw[HISTORY_IMAGE].row_lengths(),
            "history": _click_keys(raw[n].flat_values for n in columns.histories),
            "item": ids.to_keys(each(item)),
            "shown": _click_keys(each(n) for n in columns.histories.values()),
            "received": each(item),
            "shares": _shares(raw, sizes, schema, known),
        }
        for name in ("label", "row", *OPTIONAL_OF_CANDIDATES):
            if name in raw:
                parsed[name] = each(name)
        if item in known:
            parsed["unknown"] = ids.find(known[item], parsed["item"]) < 0
        return parsed

    return parse
