"""What signatures require of their inputs, in graph operations."""

import contextlib

import tensorflow as tf


def require_within(length, width):
    """Lengths of histories, once they are found to fit into the inputs."""
    check = tf.debugging.assert_equal(
        (length >= 0) & (length <= width),
        True,
        message="input history_length needs values from 0 to the histories' width",
    )
    with tf.control_dependencies([check]):
        return tf.identity(length)


def require_examples(records):
    """Serialized `tf.train.Example`s, once each is found to be one.

    `tf.io.parse_example` of TensorFlow 2.21 takes the length of a text without a look
    at its size: a record that claims 2 GB ends the process.

    Args:
        records: string tensor `[R]`.

    Raises:
        DataLossError: if one is none, in graph operations.
    """
    # `sanitize` has protobuf itself parse them. One more, because it needs one.
    sizes, _ = tf.io.decode_proto(
        tf.concat([records, [b""]], axis=0),
        "tensorflow.Example",
        ["features"],
        [tf.string],
        sanitize=True,
    )
    # A check, because an operation whose outputs nobody takes is not run.
    check = tf.debugging.assert_less_equal(sizes, 1)
    with tf.control_dependencies([check]):
        return tf.identity(records)


def with_equal_sizes(request, names, axis, what):
    """The request, once the named tensors' sizes along an axis are found equal."""
    sizes = [tf.shape(request[name])[axis] for name in names]
    with require_equal(sizes, names, what):
        return {name: tf.identity(value) for name, value in request.items()}


def require_equal(values, names, what):
    """Context of operations that wait for an `InvalidArgumentError` if values differ.

    Without it, one that fails for the same reason may come first with its message.
    """
    if not values:
        return contextlib.nullcontext()
    check = tf.debugging.assert_equal(
        tf.stack(values),
        values[0],
        message=f"inputs {', '.join(names)} need equal {what}",
        summarize=len(names),
    )
    return tf.control_dependencies([check])
