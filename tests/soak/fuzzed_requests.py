r"""Requests of all kinds to all signatures: a finite answer or a named error.

    python -m tests.soak.fuzzed_requests --data_dir=quickstart/data \
        --version=quickstart/saved_models/hccm/1 --count=1500

Asks each signature of an export `--count` requests: ids, texts and numbers of any value
in requests whose sizes fit, the same with sizes that do not, records of the data folder
with values and bytes changed. An answer is finite, of the request's rows, and a click
probability between 0 and 1; a request that is none is an `InvalidArgumentError`, a
record that is none a `DataLossError`. Anything else is printed, and ends the program
with exit code 1.
"""

import argparse
import collections
import itertools
import sys

import numpy as np
import tensorflow as tf

from hccm_tf.data.folder import DataFolder
from tests.serving.asking import ask
from tests.soak.damage import damage_bytes

INTEGERS = (-(2**63), 2**63 - 1, -1, 0, 1, 2, 10**6)
TEXTS = (b"", b"\0", b"\xff\xfe", b"0001.jpg", "ß".encode(), b"x" * 5000)
FLOATS = (np.nan, np.inf, -np.inf, 3e38, -1e-40, 0.0)
SIZES = (0, 1, 2, 3, 7, 60)


def values(dtype, shape, rng):
    """An array of values as they come and of some that should not."""
    if dtype == tf.bool:
        return rng.random(shape) < 0.7
    if dtype.is_floating:
        found = rng.normal(0, 10, shape).astype(dtype.as_numpy_dtype)
        strange = np.array(FLOATS).astype(dtype.as_numpy_dtype)
    elif dtype == tf.string:
        found = rng.integers(0, 300, shape).astype(str).astype(object)
        strange = np.array(TEXTS, object)
    else:
        limits = np.iinfo(dtype.as_numpy_dtype)
        found = rng.integers(0, min(300, limits.max), shape)
        strange = np.array([v for v in INTEGERS if limits.min <= v <= limits.max])
    odd = rng.random(shape) < 0.2
    return np.where(odd, strange[rng.integers(len(strange), size=shape)], found)


def request_of(specs, rng):
    """A request whose sizes fit, of columns."""
    rows, candidates, width = (int(rng.choice(SIZES)) for _ in range(3))
    request = {}
    for name, spec in specs.items():
        history = name.startswith("history_")
        second = width if history else candidates
        shape = [rows, second, *(spec.shape[2:] or ())][: spec.shape.rank]
        shape = [size or given for size, given in zip(spec.shape, shape, strict=True)]
        request[name] = values(spec.dtype, shape, rng)
    if "history_length" in request:
        request["history_length"] = rng.integers(0, width + 1, rows)
    return request


def misshapen(request, rng):
    """The request with one input of another size."""
    name = str(rng.choice(list(request)))
    axis = int(rng.integers(min(request[name].ndim, 2)))
    return {**request, name: np.repeat(request[name], 2, axis)}


def records(data_dir):
    """The records of a data folder's test split, again and again."""
    files = DataFolder(data_dir).files("test")
    return itertools.cycle(tf.data.TFRecordDataset(files).as_numpy_iterator())


def changed_record(record, rng):
    """A record with some values, or bytes, changed."""
    if rng.random() < 0.1:
        return damage_bytes(record, rng)
    example = tf.train.Example.FromString(record)
    for name in list(example.features.feature):
        feature = example.features.feature[name]
        kind = feature.WhichOneof("kind")
        if kind is None or rng.random() < 0.6:
            continue
        dtype = {"int64_list": tf.int64, "float_list": tf.float32}.get(kind, tf.string)
        held = getattr(feature, kind).value
        size = len(held) if rng.random() < 0.97 else int(rng.choice(SIZES))
        found = values(dtype, (size,), rng).tolist()
        if dtype == tf.string:
            found = [v if isinstance(v, bytes) else str(v).encode() for v in found]
        held[:] = found
        if rng.random() < 0.01:
            del example.features.feature[name]
    return example.SerializeToString()


def fault(signature, request):
    """What is wrong with the answer, or `""`; and whether it was one or an error."""
    try:
        answer = ask(signature, request)
    except (
        tf.errors.InvalidArgumentError,
        tf.errors.DataLossError,
        UnicodeDecodeError,
    ):
        # The last of TensorFlow's text for Python, which quotes the record.
        return "", "refused"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:500]}", "refused"
    rows = len(next(iter(request.values())))
    for name, found in answer.items():
        if found.shape[:1] != (rows,):
            return f"{name} has the shape {found.shape} for {rows} rows", "answered"
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            return f"{name} is not finite", "answered"
        is_probability = name in ("ctr", "outputs")
        if is_probability and not ((found >= 0) & (found <= 1)).all():
            return f"{name} is no probability", "answered"
    return "", "answered"


def main(version, data_dir, count, seed):
    rng, counts, faults = np.random.default_rng(seed), collections.Counter(), []
    loaded = tf.saved_model.load(version)
    whole = records(data_dir)
    for name, signature in loaded.signatures.items():
        specs = signature.structured_input_signature[1]
        for number in range(count):
            if list(specs) in (["examples"], ["inputs"]):
                size = int(rng.integers(0, 5))
                some = [changed_record(next(whole), rng) for _ in range(size)]
                request = {next(iter(specs)): np.array(some, object)}
            else:
                request = request_of(specs, rng)
                if number % 5 == 0:
                    request = misshapen(request, rng)
            wrong, outcome = fault(signature, request)
            counts[f"{name} {outcome}"] += 1
            if wrong:
                faults.append(f"{name}, request {number}: {wrong}")
    for name, number in sorted(counts.items()):
        print(f"{name}: {number}")
    print(f"{counts.total()} requests, {len(faults)} faults")
    if faults:
        sys.exit("\n".join(faults[:50]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--version", required=True, help="The folder of a version.")
    parser.add_argument("--data_dir", required=True, help="The folder DATA.")
    parser.add_argument("--count", type=int, default=1500, help="Of each signature.")
    parser.add_argument("--seed", type=int, default=0, help="Of the requests.")
    main(**vars(parser.parse_args()))
