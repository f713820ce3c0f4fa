"""Click-through-rate prediction from what users see: HCCM and its baselines."""

from hccm_tf import features, layers, models, optimizers
from hccm_tf.estimator import CTREstimator
from hccm_tf.version import __version__

__all__ = ["CTREstimator", "__version__", "features", "layers", "models", "optimizers"]
