"""What clients require of a request before it is sent, and of its answer.

What a server sends is looked at before it is believed: it may be another server, or one
that is out of order.
"""

import math

import numpy as np
import tensorflow as tf

from hccm_tf.errors import InputError

# 30,000 representations of 256 numbers. A client that takes whatever comes is ended by
# one bad answer.
MAX_BYTES = 1 << 25
# Axes of their outputs.
RANKS = {
    "serving_default": 1,
    "rank": 2,
    "rank_examples": 2,
    "serve_examples": 1,
    "regress": 1,
    "explain": 2,
    "encode_images": 2,
    "image_keys": 1,
}


class AnswerError(RuntimeError):
    """A server's answer that is none to the request; the message says why."""


def check_request(inputs):
    """Raises an `InputError` if an input has rows and no value.

    A server that merges requests fills them up with their own first values, and fails
    all of them if one has none.

    Args:
        inputs: name → array.
    """
    for name, value in inputs.items():
        shape = np.shape(value)
        if 0 in shape[1:] and shape[0]:
            raise InputError(
                f"inputs: {name} has rows and no value: leave out requests without "
                "candidates, and give histories that are all empty one place. "
                f"Received: shape {shape}"
            )


def check_answer(signature_name, inputs, outputs):
    """Raises an `AnswerError` unless outputs are finite numbers for each row.

    Args:
        signature_name: one of those in `hccm_tf.serving.signatures`.
        inputs: name → array, of the request.
        outputs: name → array.
    """
    rows = max(map(len, inputs.values()), default=0)
    width = inputs["candidate_mask"].shape[1] if signature_name == "rank" else 0
    if not outputs:
        raise AnswerError(f"{signature_name}: the answer has no outputs")
    for name, value in outputs.items():
        what = f"{signature_name}: output {name} of the answer"
        if value.dtype.kind not in "fiu":
            raise AnswerError(f"{what} is no number. Received: {value.dtype}")
        rank = RANKS.get(signature_name, max(value.ndim, 1))
        if value.ndim != rank or len(value) != rows or value.shape[-1] < width:
            raise AnswerError(
                f"{what} needs {rank} axes, {rows} rows and at least {width} columns. "
                f"Received: shape {value.shape}"
            )
        if not np.isfinite(value).all():
            raise AnswerError(f"{what} has numbers that are not finite")


def to_array(name, proto):
    """The array of a tensor, which holds as many values as it claims.

    TensorFlow repeats the last value otherwise, up to the end of the memory.

    Args:
        name: of the output.
        proto: `TensorProto`.

    Raises:
        AnswerError: if it claims more or less, or cannot be read.
    """
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    try:
        size = np.dtype(tf.as_dtype(proto.dtype).as_numpy_dtype).itemsize
        held = len(proto.tensor_content) / size
        held += sum(len(v) for f, v in proto.ListFields() if f.name.endswith("_val"))
        if min(sizes, default=0) < 0 or math.prod(sizes) != held:
            raise ValueError(f"it claims the shape {sizes} and holds {held:g} values")
        return tf.make_ndarray(proto)
    except (KeyError, TypeError, ValueError) as error:
        raise AnswerError(f"output {name} of the answer: {error}") from error
