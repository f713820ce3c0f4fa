"""What `tf.io.parse_example` reads of the records of a data folder."""

from etils import epy

from hccm_tf.data.feature import HISTORY_IMAGE

with epy.lazy_imports():
    import tensorflow as tf


def parse_spec(schema):
    """The spec with which `tf.io.parse_example` reads the examples."""
    spec = {
        "label": tf.io.FixedLenFeature([], tf.int64),
        "user_key": tf.io.FixedLenFeature([], tf.int64),
        "image": tf.io.FixedLenFeature([], tf.int64),
        HISTORY_IMAGE: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
    }
    for feature in schema.scalars:
        spec[feature.name] = tf.io.FixedLenFeature([], tf.as_dtype(feature.dtype))
    for feature in schema.sequences:
        spec[feature.name] = tf.io.RaggedFeature(
            tf.as_dtype(feature.dtype), row_splits_dtype=tf.int64
        )
    return spec
