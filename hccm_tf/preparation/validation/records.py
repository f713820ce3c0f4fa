"""Checks the records of a data folder one by one."""

import dataclasses
import functools
import itertools
import re

import numpy as np
from etils import epy
from google.protobuf.message import DecodeError

from hccm_tf.data import ids
from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.preparation.examples.write import LISTS

with epy.lazy_imports():
    import tensorflow as tf

BATCH_SIZE = 4096
READ_BYTES = 8 << 20
# An odd number (2**64 / golden ratio) that spreads small numbers over all bits.
SPREAD = np.int64(-7046029254386353131)


def _problem_of_record(record, spec):
    """Why a serialized example cannot be parsed, `None` if it can."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return "not a tf.train.Example"
    lengths = {}
    for name, entry in spec.items():
        single = isinstance(entry, tf.io.FixedLenFeature)
        kind = features[name].WhichOneof("kind") if name in features else None
        if kind is None and single:
            return f"no feature {name}"
        if kind not in (None, LISTS[entry.dtype.name]):
            return f"feature {name} is of type {kind}, not {LISTS[entry.dtype.name]}"
        length = len(getattr(features[name], kind).value) if kind else 0
        if single and length != 1:
            return f"feature {name} has {length} values, not 1"
        if not single:
            lengths[name] = length
    if len(set(lengths.values())) > 1:
        return f"histories of unequal lengths: {lengths}"
    return None


def _first_problem(path, spec):
    """Names the first record of a file that cannot be read or parsed."""
    records = iter(tf.data.TFRecordDataset(str(path)))
    for row in itertools.count(1):
        try:
            record = next(records, None)
        except tf.errors.DataLossError as error:
            reason = re.search(r"(truncated|corrupted) record at \d+", error.message)
            reason = reason[0] if reason else error.message
            return f"{path}: record {row}: {reason}; build the examples again"
        if record is None:
            return f"{path}: cannot be parsed"
        problem = _problem_of_record(record.numpy(), spec)
        if problem:
            return f"{path}: record {row}: {problem}"


def _shares(raw, schema, known):
    """What is reported as a share of a split: name → number of impressions."""
    image = raw["image"]
    shares = {
        "click rate": raw["label"] == 1,
        "without history": raw[HISTORY_IMAGE].row_lengths() == 0,
        "without image": image == ids.NO_IMAGE,
    }
    if "feature map" in known:
        missing = ids.find(known["feature map"], image) < 0
        shares["image without feature map"] = (image != ids.NO_IMAGE) & missing
    for feature in schema.scalars:
        if feature.odd:
            keys = schema.vocabularies.get(feature.name)
            odd = feature.is_odd(raw[feature.name], keys)
            shares[f"{feature.name} {feature.odd}"] = odd
    return {name: tf.math.count_nonzero(mark) for name, mark in shares.items()}


def _click_keys(columns):
    keys = (ids.to_keys(column) for column in columns)
    return functools.reduce(lambda left, right: left * SPREAD + right, keys)


def make_parser(schema, spec, known):
    """Makes the graph function from serialized examples to what is checked of them.

    Args:
        schema: `Schema`.
        spec: what `tf.io.parse_example` takes.
        known: sorted keys by the names `"item_id"`, `"image"` and `"feature map"`, as
            far as they are known.

    Returns:
        Function from a string tensor `[B]` to a dict of tensors: int64 `[B]` `user`,
        `label`, `length` of the history, `item` (its key), `shown` (key of the click
        that the impression would be) and, if the data have it, `time`;
        `[sum(length)]` `history`, keys of its clicks; `[B]` `received`, the item as it
        stands there; bool `[B]` `unknown`, whether the catalogue lacks it; and
        `shares`, name → the number of impressions of which it holds.
    """
    # Tensors of their own: keys inside the graph would meet its limit of 2 GB.
    known = {name: tf.constant(keys) for name, keys in known.items()}
    vocabularies = {n: tf.constant(keys) for n, keys in schema.vocabularies.items()}
    schema = dataclasses.replace(schema, vocabularies=vocabularies)
    by_item = "item_id" in schema and schema["item_id"].is_embedded
    item = "item_id" if by_item else "image"
    # History → the column of a click that it holds.
    names = {HISTORY_IMAGE: "image", **{f.name: f.shares for f in schema.sequences}}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def parse(records):
        raw = tf.io.parse_example(records, spec)
        splits = raw[HISTORY_IMAGE].row_splits
        for name in names:
            tf.debugging.assert_equal(raw[name].row_splits, splits)
        parsed = {
            "user": raw["user_key"],
            "label": raw["label"],
            "length": raw[HISTORY_IMAGE].row_lengths(),
            "item": ids.to_keys(raw[item]),
            "shown": _click_keys(raw[column] for column in names.values()),
            "history": _click_keys(raw[name].flat_values for name in names),
            "received": raw[item],
            "shares": _shares(raw, schema, known),
        }
        if item in known:
            parsed["unknown"] = ids.find(known[item], parsed["item"]) < 0
        if "timestamp" in raw:
            parsed["time"] = raw["timestamp"]
        return parsed

    return parse


def read_shard(path, length, parse, spec, max_history):
    """Checks each record of a file by itself.

    Args:
        path: the file.
        length: the number of records that it must have.
        parse: function of `make_parser`.
        spec: what `tf.io.parse_example` takes.
        max_history: int.

    Returns:
        `(batches, errors)`: list of dicts as `parse` returns them, of NumPy arrays;
        list of str.
    """
    dataset = tf.data.TFRecordDataset(str(path), buffer_size=READ_BYTES)
    batches, problems, errors, count = [], {}, [], 0
    try:
        for records in dataset.batch(BATCH_SIZE).prefetch(1):
            batch = tf.nest.map_structure(lambda x: x.numpy(), parse(records))
            label, received = batch["label"], batch.pop("received")
            unknown = batch.pop("unknown", np.zeros(label.size, bool))
            for problem, bad, values in (
                ("a label is 0 or 1", (label != 0) & (label != 1), label),
                (
                    f"its history is longer than max_history={max_history}",
                    batch["length"] > max_history,
                    batch["length"],
                ),
                ("its item is not in the catalogue", unknown, received),
            ):
                if bad.any():
                    row = int(np.argmax(bad))
                    first = f"record {count + row + 1}: {problem}. "
                    first += f"Received: {values[row]}"
                    problems.setdefault(problem, [first, 0])[1] += int(bad.sum())
            batches.append(batch)
            count += label.size
        if count != length:
            errors = [f"{path}: {count} records, in dataset_info.json {length}"]
    # The last where TensorFlow's message quotes a record that is not UTF-8.
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, UnicodeError):
        errors = [_first_problem(path, spec)]
    errors += [f"{path}: {first} ({n} such records)" for first, n in problems.values()]
    return batches, errors
