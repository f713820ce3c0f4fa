"""Arrays in files that graph operations map into memory."""

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf


def mapped_array(file, dtype, shape):
    """The array in a file, mapped into memory where it is read; in a graph.

    Args:
        file: path of a file of the array's bytes and nothing else, at least one.
        dtype: `tf.DType`.
        shape: tuple of int.

    Returns:
        tensor.
    """
    array = tf.raw_ops.ImmutableConst(
        dtype=dtype, shape=shape, memory_region_name=str(file)
    )
    # TensorFlow evaluates constants when it prepares a graph, and copies them whole,
    # unless they have this attribute (empty: of no other effect). There is no public
    # way to set it.
    nothing = tf.compat.v1.AttrValue(list=tf.compat.v1.AttrValue.ListValue())
    array.op._set_attr("_scoped_allocator", nothing)
    return array
