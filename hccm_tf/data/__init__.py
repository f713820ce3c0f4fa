"""Reads DATA and MAPS: schema, ids, data folder, image stores, tf.data pipeline."""

from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema

__all__ = ["Feature", "Schema"]
