"""Whether a version is whole, as a server needs it: nothing of it is cut or missing."""

import math
import pathlib

import numpy as np
from etils import epy
from google.protobuf.message import DecodeError

from hccm_tf.errors import first_line

with epy.lazy_imports():
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow_serving.apis import prediction_log_pb2

MODEL = "saved_model.pb"
VARIABLES = pathlib.Path("variables", "variables")
WARMUP = pathlib.Path("assets.extra", "tf_serving_warmup_requests")


def damages():
    """What reading a damaged version raises; tuple of exceptions."""
    python = (LookupError, OSError, RuntimeError, ValueError)
    return *python, DecodeError, tf.errors.OpError


def missing(version):
    """What a version lacks to be whole, one line; empty if nothing.

    Of the variables only the lengths are looked at, so that large tables cost no time.

    Args:
        version: `pathlib.Path` of what has a version's number.
    """
    if not version.is_dir():
        return "it is no folder"
    try:
        model = saved_model_pb2.SavedModel.FromString((version / MODEL).read_bytes())
        if not model.meta_graphs:
            return f"{MODEL} is empty"
        return _missing_of_variables(version) or _read_warmup(version / WARMUP)
    except damages() as error:
        return first_line(error) or type(error).__name__


def _missing_of_variables(version):
    checkpoint = tf.train.load_checkpoint(str(version / VARIABLES))
    shapes = checkpoint.get_variable_to_shape_map()
    needed = 0
    for name, dtype in checkpoint.get_variable_to_dtype_map().items():
        if dtype == tf.string:
            needed += sum(map(len, np.ravel(checkpoint.get_tensor(name))))
        else:
            needed += math.prod(shapes[name]) * dtype.size
    folder = (version / VARIABLES).parent
    held = sum(path.stat().st_size for path in folder.glob("variables.data-*"))
    if held < needed:
        return f"the variables have {held} bytes and need {needed}"
    return ""


def _read_warmup(path):
    """Reads all records, of which a server refuses a cut one with the whole version."""
    if path.exists():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            prediction_log_pb2.PredictionLog.FromString(record)
    return ""
