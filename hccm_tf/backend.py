"""The backend of Keras: layers and optimizers run on each, training on TensorFlow."""

from hccm_tf.errors import InputError


def require_tensorflow(backend):
    """Raises an `InputError` if Keras runs, or would run, on another backend.

    Args:
        backend: its name; `None` or empty for Keras' default.
    """
    if backend not in (None, "", "tensorflow"):
        raise InputError(
            f"KERAS_BACKEND={backend}: training, export and feature maps need Keras on "
            "TensorFlow; unset it, or set KERAS_BACKEND=tensorflow, before Keras starts"
        )
