"""Batch normalization in one operation where TensorFlow has one."""

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None


def normalize_batch(x, epsilon, scale=None, offset=None):
    """Normalizes each channel by its moments over all positions.

    `(x - mean) / sqrt(variance + epsilon) * scale + offset`, by TensorFlow's fused
    operation where there is one for `x`. Its forward and backward passes read and write
    the array a few times, those of the formula about ten times.

    Args:
        x: float tensor of shape `[..., c]`.
        epsilon: float, at least `1e-8`.
        scale: optional tensor `[c]`.
        offset: optional tensor `[c]`.

    Returns:
        `(outputs, mean, variance)`, of the shapes `[..., c]`, `[c]` and `[c]`. The
        moments of no position at all are not finite.
    """
    if tf is None or x.dtype != tf.float32:
        axes = tuple(range(len(x.shape) - 1))
        mean, variance = ops.moments(x, axes)
        outputs = ops.batch_normalization(
            x, mean, variance, -1, offset=offset, scale=scale, epsilon=epsilon
        )
        return outputs, mean, variance
    shape, channels = tf.shape(x), x.shape[-1]
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x if len(x.shape) == 4 else tf.reshape(x, (-1, 1, 1, channels)),
        scale=tf.ones(channels) if scale is None else scale,
        offset=tf.zeros(channels) if offset is None else offset,
        mean=[],
        variance=[],
        epsilon=epsilon,
        is_training=True,
    )
    count = tf.cast(tf.size(x) // channels, tf.float32)
    # The operation's is the unbiased estimate, n / (n - 1) times as large.
    variance *= (count - 1) / count
    return tf.reshape(outputs, shape), mean, variance


def normalize_masked(x, mask, epsilon):
    """Normalizes each channel by its moments over the positions of a mask.

    The moments are products with a row of weights: Keras' `BatchNormalization` has the
    same numbers but writes masked copies of `x`.

    Args:
        x: float tensor of shape `[..., c]`.
        mask: tensor of shape `[...]`, true where a position counts.
        epsilon: float, at least `1e-8`.

    Returns:
        `(outputs, mean, variance, count)`, of the shapes `[..., c]`, `[c]`, `[c]` and
        `[]`; the moments of no position at all are 0.
    """
    channels = x.shape[-1]
    mask = ops.reshape(ops.cast(mask, x.dtype), (1, -1))
    count = ops.sum(mask)
    weights = mask / ops.maximum(count, 1.0)
    mean = ops.matmul(weights, ops.reshape(x, (-1, channels)))[0]
    centered = x - mean
    squares = ops.reshape(ops.square(centered), (-1, channels))
    variance = ops.matmul(weights, squares)[0]
    return centered * ops.rsqrt(variance + epsilon), mean, variance, count


@keras.saving.register_keras_serializable(package="hccm_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis, with `normalize_batch`.

    In training, where a batch without any position, or with none that the mask has,
    leaves the moving averages as they are; else it is Keras' layer. Inference takes
    inputs of any rank.

    Call arguments:
        inputs: float tensor of shape `[..., c]`.
        training: Python boolean: batch statistics (`True`) or moving averages.
        mask: optional boolean tensor of the shape of `inputs` without its last axis,
            `True` where a position counts.
        update: optional boolean tensor, `False` to leave the averages as they are.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(axes={-1: input_shape[-1]})

    def call(self, inputs, training=None, mask=None, update=True):
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        # Statistics of float16 inputs would overflow.
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        scale, offset = (
            None if weight is None else ops.cast(weight, dtype)
            for weight in (self.gamma, self.beta)
        )
        x = ops.cast(inputs, dtype)
        if mask is None:
            count = ops.size(x)
            outputs, *moments = normalize_batch(x, self.epsilon, scale, offset)
        else:
            outputs, *moments, count = normalize_masked(x, mask, self.epsilon)
            outputs = outputs if scale is None else outputs * scale
            outputs = outputs if offset is None else outputs + offset
        update_averages(self, *moments, ops.logical_and(count > 0, update))
        return ops.cast(outputs, self.compute_dtype)


def update_averages(layer, mean, variance, condition):
    """Moves `moving_mean` and `moving_variance` by `1 - momentum` if `condition`."""
    for average, value in (
        (layer.moving_mean, mean),
        (layer.moving_variance, variance),
    ):
        old = ops.cast(average, value.dtype)
        new = old + (1.0 - layer.momentum) * (value - old)
        average.assign(ops.where(condition, new, old))
