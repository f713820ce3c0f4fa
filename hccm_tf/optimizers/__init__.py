"""Keras optimizers that update only the embedding rows which a batch touched."""

from hccm_tf.optimizers.lazy_adam import LazyAdam
from hccm_tf.optimizers.rowwise_adagrad import RowwiseAdagrad

__all__ = ["LazyAdam", "RowwiseAdagrad"]
