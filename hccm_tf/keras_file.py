"""Reads the file of a trained Keras model."""

import keras
from packaging.version import Version

from hccm_tf.errors import InputError, first_line


def load_keras_model(path, saved_by=None):
    """The Keras model of a file.

    Args:
        path: of a `.keras` file.
        saved_by: `packaging.version.Version` of the Keras that saved it, if known.

    Raises:
        InputError: if it is damaged, or of a newer Keras than is installed.
    """
    try:
        # In safe mode, which is Keras' default: code that is in the file does not run.
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (
        AttributeError,
        ImportError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = first_line(error)
        if saved_by is not None and saved_by > Version(keras.__version__):
            reason = (
                f"saved by Keras {saved_by}, newer than {keras.__version__}, which is "
                f"installed; install keras>={saved_by}"
            )
        raise InputError(f"{path} is no trained model ({reason})") from error
