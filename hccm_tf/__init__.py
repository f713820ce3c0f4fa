"""Click-through-rate prediction from what users see: HCCM and its baselines."""

import importlib

from hccm_tf.version import __version__

__all__ = [
    "CTREstimator",
    "__version__",
    "data",
    "layers",
    "load_run",
    "models",
    "optimizers",
]

# Imported when first asked for: the layers and optimizers need Keras alone, and data
# tools start faster than TensorFlow.
_HOMES = {"CTREstimator": "hccm_tf.estimator", "load_run": "hccm_tf.estimator"}


def __dir__():
    return sorted({*globals(), *__all__})


def __getattr__(name):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"hccm_tf.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
