"""The old name of `hccm_tf.data.schema`."""

import warnings

from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema, read_schema

__all__ = ["Feature", "Schema", "read_schema"]

warnings.warn(
    "hccm_tf.features is now hccm_tf.data: write `from hccm_tf.data import Schema`",
    FutureWarning,
    stacklevel=2,
)
