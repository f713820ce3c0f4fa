"""Cosine similarity features of a candidate and a history."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="hccm_tf")
class CosineSimilarity(keras.layers.Layer):
    """Summarises how similar a candidate is to the vectors of a history.

    With `c_t` the cosine of `query` and `keys[t]`, over the non-masked positions:

    ```
    output = [ mean_t c_t,  max_t c_t,  log(mean_t exp(s * c_t)) / s ]
    ```

    The third value is a soft maximum: with a growing sharpness `s` it moves from the
    mean to the maximum. The cosine with a zero vector is 0 and passes no gradient to
    that vector. An empty history gives zeros. The layer has no weights.

    Args:
        sharpness: float, the `s` of the formula. Defaults to `10.0`.
        **kwargs: Args to pass to the base class.

    Call arguments:
        query: float tensor of shape `[B, D]` or `[B, N, D]`.
        keys: float tensor of shape `[B, T, D]`.
        keys_mask: optional boolean tensor of shape `[B, T]`, or `[B, N, T]` for a mask
            of each query's own, `True` where a position counts. Masked positions may
            hold any finite values.

    Output:
        Tensor of shape `[B, 3]` or `[B, N, 3]`, in the layer's compute dtype.

    Raises:
        ValueError: If `sharpness` is not positive.

    Example:
    ```python
    candidate = np.random.randn(2, 128)
    history = np.random.randn(2, 100, 128)
    layer = hccm_tf.layers.CosineSimilarity()
    features = layer(query=candidate, keys=history)  # (2, 3)
    ```
    """

    def __init__(self, sharpness=10.0, **kwargs):
        super().__init__(**kwargs)
        if sharpness <= 0:
            raise ValueError(
                f"`sharpness` must be positive. Received: sharpness={sharpness}"
            )
        self.sharpness = sharpness

    def build(self, query_shape, keys_shape):
        pass

    def call(self, query, keys, keys_mask=None):
        values, mask = cosines(query, keys, keys_mask)
        count = ops.sum(ops.cast(mask, values.dtype), axis=-1)
        empty = ops.equal(count, 0)
        count = ops.maximum(count, 1.0)
        mean = ops.sum(ops.where(mask, values, 0.0), axis=-1) / count
        maximum = ops.max(ops.where(mask, values, -2.0), axis=-1)
        exponents = ops.where(mask, self.sharpness * values, -1e9)
        soft = ops.logsumexp(exponents, axis=-1) - ops.log(count)
        features = ops.stack([mean, maximum, soft / self.sharpness], axis=-1)
        features = ops.where(empty[..., None], 0.0, features)
        if len(query.shape) == 2:
            features = features[:, 0]
        return ops.cast(features, self.compute_dtype)

    def compute_mask(self, inputs, previous_mask):
        # That of the candidates; one candidate, [B, D], has none.
        return previous_mask if len(inputs.shape) == 3 else None

    def compute_output_shape(self, query_shape, keys_shape):
        return (*query_shape[:-1], 3)

    def get_config(self):
        config = super().get_config()
        config.update(sharpness=self.sharpness)
        return config


def cosines(query, keys, keys_mask=None):
    """Cosines of candidates and a history, and where they count.

    Args:
        query: float tensor of shape `[B, D]` or `[B, N, D]`.
        keys: float tensor of shape `[B, T, D]`.
        keys_mask: optional boolean tensor of shape `[B, T]` or `[B, N, T]`.

    Returns:
        `(cosines, mask)`: at least float32, of shape `[B, N, T]`, `N` 1 without it, 0
        for a zero vector; and the mask as boolean tensor of shape `[B, 1, T]` or `[B,
        N, T]`.
    """
    # Squares of float16 values overflow and underflow easily.
    dtype = keras.backend.result_type(query.dtype, "float32")
    query, keys = ops.cast(query, dtype), ops.cast(keys, dtype)
    if len(query.shape) == 2:
        query = query[:, None, :]
    dots = ops.matmul(query, ops.transpose(keys, (0, 2, 1)))
    values = dots * _inverse_norm(query)[:, :, None] * _inverse_norm(keys)[:, None, :]
    if keys_mask is None:
        return values, ops.ones_like(values[:, :1, :], dtype="bool")
    mask = ops.cast(keys_mask, "bool")
    return values, mask if len(mask.shape) == 3 else mask[:, None, :]


def _inverse_norm(x):
    squares = ops.sum(ops.square(x), axis=-1)
    nonzero = squares > 1e-12
    # The inner `where` keeps an infinite gradient from arising, the outer one alone
    # would multiply it by 0 and give NaN.
    return ops.where(nonzero, ops.rsqrt(ops.where(nonzero, squares, 1.0)), 0.0)
