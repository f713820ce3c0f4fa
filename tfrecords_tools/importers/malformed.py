"""What foreign files hold that is not of their form becomes one line."""

import contextlib

from hccm_tf.errors import InputError

# What Python and Arrow raise of values of another form than is expected. Not OSError,
# which may be of the disk that is written to.
MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


@contextlib.contextmanager
def malformed_named(path):
    """Turns such an error into an `InputError` that names the file."""
    try:
        yield
    except InputError:
        raise
    except MALFORMED as error:
        raise InputError(
            f"{path}: not of the form that is read: {type(error).__name__}: {error}"
        ) from error
