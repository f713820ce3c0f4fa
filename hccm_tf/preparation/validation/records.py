"""Checks the records of a data folder one by one."""

import dataclasses
import itertools
import re

import numpy as np
from etils import epy
from google.protobuf.message import DecodeError

from hccm_tf.preparation.examples.records import LISTS
from hccm_tf.progress import advance

with epy.lazy_imports():
    import tensorflow as tf

BATCH_SIZE = 4096
READ_BYTES = 8 << 20
AGAIN = "build the examples again"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the records of a data folder may not exceed.

    Args:
        max_history: clicks of a history.
        max_candidates: candidates of a request; `None` if it is not known.
        num_rows: rows of the log; `None` if it is not known.
    """

    max_history: int
    max_candidates: int | None = None
    num_rows: int | None = None


def _problem_of_record(record, columns):
    """Why a serialized example cannot be parsed, `None` if it can."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return "not a tf.train.Example"
    lengths = {}
    for name, entry in columns.spec.items():
        kind = features[name].WhichOneof("kind") if name in features else None
        if kind is None and name not in columns.histories:
            return f"no feature {name}"
        if kind not in (None, LISTS[entry.dtype.name]):
            return f"feature {name} is of type {kind}, not {LISTS[entry.dtype.name]}"
        length = len(getattr(features[name], kind).value) if kind else 0
        lengths[name] = length
        if isinstance(entry, tf.io.FixedLenFeature) and length != 1:
            return f"feature {name} has {length} values, not 1"
    for title, names in (
        ("histories", columns.histories),
        ("candidates", columns.candidates),
    ):
        found = {name: lengths[name] for name in names}
        if len(set(found.values())) > 1:
            return f"{title} of unequal lengths: {found}"
    return None if any(found.values()) else "a request without candidates"


def _first_problem(path, columns):
    """Names the first record of a file that cannot be read or parsed."""
    records = iter(tf.data.TFRecordDataset(str(path)))
    for row in itertools.count(1):
        try:
            record = next(records, None)
        except tf.errors.DataLossError as error:
            reason = re.search(r"(truncated|corrupted) record at \d+", error.message)
            reason = reason[0] if reason else error.message
            return f"{path}: record {row}: {reason}; {AGAIN}"
        if record is None:
            return f"{path}: cannot be parsed; {AGAIN}"
        problem = _problem_of_record(record.numpy(), columns)
        if problem:
            return f"{path}: record {row}: {problem}; {AGAIN}"


def _problems(batch, limits):
    """Yields what may be wrong with records that can be parsed.

    Args:
        batch: dict as `parse` returns it, of NumPy arrays.
        limits: `Limits`.

    Yields:
        `(problem, bad, values)`: text; bool `[R]` or `[I]`; what stands there.
    """
    label, row = batch["label"], batch["row"]
    yield "a label is 0 or 1", (label != 0) & (label != 1), label
    longest, most = limits.max_history, limits.max_candidates
    problem = f"its history is longer than max_history={longest}"
    yield problem, batch["length"] > longest, batch["length"]
    if most is not None:
        problem = f"it has more candidates than max_candidates={most} of summary.json"
        yield problem, batch["size"] > most, batch["size"]
    if "unknown" in batch:
        problem = "its item is not in the catalogue"
        yield problem, batch["unknown"], batch["received"]
    rows = limits.num_rows
    problem = "a row of the log is 0 or more"
    if rows is not None:
        problem = f"the log has the rows 0 to {rows - 1}"
    yield problem, (row < 0) | (row >= (np.inf if rows is None else rows)), row
    if "weight" in batch:
        weight = batch["weight"]
        good = np.isfinite(weight) & (weight >= 0)
        yield "a weight is finite, 0 or more", ~good, weight


def read_shard(path, length, parse, columns, limits):
    """Checks each record of a file by itself.

    Args:
        path: the file.
        length: the number of records that it must have.
        parse: function of `make_parser`.
        columns: `Columns` that it parses.
        limits: `Limits`.

    Returns:
        `(batches, errors)`: list of dicts as `parse` returns them, of NumPy arrays;
        list of str.
    """
    dataset = tf.data.TFRecordDataset(str(path), buffer_size=READ_BYTES)
    batches, problems, errors, count = [], {}, [], 0
    try:
        for serialized in dataset.batch(BATCH_SIZE).prefetch(1):
            parsed = parse(serialized)
            batch = tf.nest.map_structure(lambda x: x.numpy(), parsed)
            requests = np.arange(batch["size"].size)
            owners = np.repeat(requests, batch["size"])
            for problem, bad, values in _problems(batch, limits):
                if bad.any():
                    place = int(np.argmax(bad))
                    records = owners if bad.size == owners.size else requests
                    first = f"record {count + records[place] + 1}: {problem}. "
                    first += f"Received: {values[place]}"
                    counts = problems.setdefault(problem, [first, 0])
                    counts[1] += np.unique(records[bad]).size
            del batch["received"]
            batch.pop("unknown", None)
            batches.append(batch)
            count += requests.size
            advance(requests.size)
        if count != length:
            errors = [f"{path}: {count} records, in dataset_info.json {length}"]
    # The last where TensorFlow's message quotes a record that is not UTF-8.
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, UnicodeError):
        errors = [_first_problem(path, columns)]
    errors += [
        f"{path}: {first} ({n} such records); {AGAIN}" for first, n in problems.values()
    ]
    return batches, errors
