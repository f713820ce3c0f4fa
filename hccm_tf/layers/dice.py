"""Dice, the data-adaptive activation function."""

import keras
from keras import ops

from hccm_tf.layers.batch_normalization import (
    normalize_batch,
    normalize_masked,
    update_averages,
)


@keras.saving.register_keras_serializable(package="hccm_tf")
class Dice(keras.layers.Layer):
    """Data-adaptive activation: a PReLU whose rectifying point follows the data.

    ```
    p = sigmoid( (x - mean) / sqrt(variance + epsilon) )
    output = p * x + (1 - p) * alpha * x
    ```

    `alpha` is learned per channel, from 0. Mean and variance are the batch's in
    training and moving averages otherwise, and count the non-masked positions only.

    Args:
        momentum: float. Momentum of the moving averages. Defaults to `0.9`, as a value
            of 0.99 leaves them stale for hundreds of steps.
        epsilon: float. Added to the variance. Defaults to `1e-8`, the paper's value.
        **kwargs: Args to pass to the base class.

    Call arguments:
        inputs: float tensor of shape `[..., c]`.
        mask: optional boolean tensor of shape `[...]`, `True` where a position counts.
            Masked positions are transformed too, but leave no trace in the statistics.
        training: Python boolean, see above.

    Output:
        Tensor of the shape of `inputs`, in the layer's compute dtype.

    Example:
    ```python
    layer = hccm_tf.layers.Dice()
    output = layer(np.random.randn(32, 80), training=True)  # (32, 80)
    ```

    References:
    - [G. Zhou et al., Deep Interest Network, KDD 2018](https://arxiv.org/abs/1706.06978),
      Eq. 4
    """

    def __init__(self, momentum=0.9, epsilon=1e-8, **kwargs):
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.supports_masking = True

    def build(self, inputs_shape):
        shape = (inputs_shape[-1],)
        self.alpha = self.add_weight(shape=shape, initializer="zeros", name="alpha")
        self.moving_mean = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="moving_mean"
        )
        self.moving_variance = self.add_weight(
            shape=shape, initializer="ones", trainable=False, name="moving_variance"
        )

    def call(self, inputs, mask=None, training=None):
        # Statistics of float16 inputs would overflow.
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        x = ops.cast(inputs, dtype)
        if training and self.trainable:
            normalized = self._normalize_batch(x, mask)
        else:
            mean = ops.cast(self.moving_mean, dtype)
            variance = ops.cast(self.moving_variance, dtype)
            normalized = (x - mean) * ops.rsqrt(variance + self.epsilon)
        p = ops.sigmoid(normalized)
        alpha = ops.cast(self.alpha, dtype)
        return ops.cast(x * (alpha + (1.0 - alpha) * p), self.compute_dtype)

    def _normalize_batch(self, x, mask):
        """`x` normalized by the batch's moments; updates the averages."""
        if mask is None:
            normalized, mean, variance = normalize_batch(x, self.epsilon)
            update_averages(self, mean, variance, ops.size(x) > 0)
            return normalized
        normalized, mean, variance, count = normalize_masked(x, mask, self.epsilon)
        update_averages(self, mean, variance, count > 0)
        return normalized

    def compute_output_shape(self, inputs_shape):
        return inputs_shape

    def get_config(self):
        config = super().get_config()
        config.update(momentum=self.momentum, epsilon=self.epsilon)
        return config
