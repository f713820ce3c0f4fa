"""Attention unit of the Deep Interest Network."""

import keras
from keras import ops

from hccm_tf.layers.dice import Dice

_BACKEND = keras.backend.backend()


@keras.saving.register_keras_serializable(package="hccm_tf")
class DINAttention(keras.layers.Layer):
    """Sums a history, each position weighed by a small MLP on it and the candidate.

    ```
    a(q, k) = MLP([q, k, q - k, q * k])      MLP: hidden_units, then 1 linear unit
    output = sum_t w_t k_t
    ```

    with `w_t = a(q, k_t)` or its softmax over the history. `[B, T, 4D]` is never built.
    With the MLP's first kernel in blocks `[Wq; Wk; Wd; Wp]` of `D` rows,

    ```
    [q, k, q - k, q * k] W = q (Wq + Wd) + k (Wk - Wd) + (q * k) Wp
    ```

    the first term is computed once per candidate and the second once per position. With
    a mask, the third and the MLP see the non-masked pairs of candidate and position
    only; where `D` is small (3 D up to the first hidden layer's units), one product of
    their `[q, k, q * k]` is cheaper. Without a mask, and on JAX, which needs static
    shapes, the last two terms are one batched product of the history with a kernel
    `(Wk - Wd) + diag(q) Wp` per candidate.

    Args:
        hidden_units: tuple of ints, at least one. Defaults to `(80, 40)`.
        activation: `"dice"` (default) or the name of a Keras activation, after each
            hidden layer. Dice's statistics count each non-masked position once.
        normalize: `None` (default, the paper's choice: weights keep the intensity of
            interest) or `"softmax"`, over the non-masked positions.
        **kwargs: Args to pass to the base class.

    Call arguments:
        query: float tensor of shape `[B, D]`, or `[B, N, D]` for `N` candidates that
            share one history.
        keys: float tensor of shape `[B, T, D]`, also the values.
        keys_mask: optional boolean tensor of shape `[B, T]`, `True` where a position
            counts. Masked positions have weight 0 and may hold any finite values.
        query_mask: optional boolean tensor of shape `[B, N]`, `True` where a candidate
            counts. What is returned for others, which may hold any finite values, is
            finite, and they leave no trace in Dice's statistics.
        training: Python boolean, passed on to Dice.
        return_attention_scores: whether to return the weights w too.

    Output:
        Tensor of shape `[B, D]` or `[B, N, D]`, in the layer's compute dtype. A history
        without any non-masked position gives zeros. With `return_attention_scores` a
        tuple of it and the weights, `[B, T]` or `[B, N, T]`.

    Raises:
        ValueError: If `hidden_units` is empty, `normalize` is unknown, `keys` have not
            three dimensions, or not the same static last one as `query`.

    Example:
    ```python
    candidate = np.random.randn(2, 16)
    history = np.random.randn(2, 100, 16)
    layer = hccm_tf.layers.DINAttention()
    interest = layer(query=candidate, keys=history)  # (2, 16)
    ```

    References:
    - [G. Zhou et al., Deep Interest Network, KDD 2018](https://arxiv.org/abs/1706.06978),
      Eq. 3
    """

    def __init__(
        self, hidden_units=(80, 40), activation="dice", normalize=None, **kwargs
    ):
        super().__init__(**kwargs)
        if not hidden_units:
            raise ValueError(
                "`hidden_units` needs at least one layer. "
                f"Received: hidden_units={hidden_units}"
            )
        if normalize not in (None, "softmax"):
            raise ValueError(
                "`normalize` must be None or 'softmax'. "
                f"Received: normalize={normalize}"
            )
        # XLA has no arrays whose size depends on a mask. (Keras asks for it on GPUs.)
        self.supports_jit = _BACKEND != "tensorflow"
        self.hidden_units = tuple(hidden_units)
        self.activation = activation
        self.normalize = normalize

    def build(self, query_shape, keys_shape):
        if len(keys_shape) != 3:
            raise ValueError(
                f"`keys` are `[B, T, D]`. Received: keys.shape={keys_shape}"
            )
        dim = keys_shape[-1]
        if dim is None or query_shape[-1] != dim:
            raise ValueError(
                "`query` and `keys` need the same static last dimension. "
                f"Received: query.shape={query_shape}, keys.shape={keys_shape}"
            )
        units = self.hidden_units[0]
        # One weight, so that its initial scale is that of a dense layer on [B, T, 4D].
        self.kernel = self.add_weight(
            shape=(4 * dim, units), initializer="glorot_uniform", name="kernel"
        )
        self.bias = self.add_weight(shape=(units,), initializer="zeros", name="bias")
        self.denses, self.activations = [], []
        for i, next_units in enumerate((*self.hidden_units[1:], 1), start=1):
            if self.activation == "dice":
                activation = Dice(dtype=self.dtype_policy, name=f"dice{i}")
            else:
                activation = keras.layers.Activation(
                    self.activation, dtype=self.dtype_policy, name=f"activation{i}"
                )
            activation.build((None, units))
            # Softmax would remove what the last unit's bias adds to all scores.
            use_bias = i < len(self.hidden_units) or self.normalize is None
            dense = keras.layers.Dense(
                next_units,
                use_bias=use_bias,
                dtype=self.dtype_policy,
                name=f"dense{i}",
            )
            dense.build((None, units))
            self.activations.append(activation)
            self.denses.append(dense)
            units = next_units

    def call(
        self,
        query,
        keys,
        keys_mask=None,
        query_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        one_candidate = len(query.shape) == 2
        if one_candidate:
            query, query_mask = query[:, None, :], None
        mask = None
        if keys_mask is not None:
            mask = ops.cast(keys_mask, "bool")[:, None, :]
        counts = _and(mask, query_mask)
        # JAX needs static shapes.
        if counts is None or _BACKEND == "jax":
            scores = self._scores(query, keys, counts, training)
        else:
            scores = self._scores_of_pairs(query, keys, counts, training)
        if self.normalize == "softmax":
            scores = _masked_softmax(scores, mask)
        outputs = ops.matmul(scores, keys)
        if one_candidate:
            outputs, scores = outputs[:, 0], scores[:, 0]
        return (outputs, scores) if return_attention_scores else outputs

    def _scores_of_pairs(self, query, keys, mask, training):
        """Scores `[B, N, T]`, 0 where the mask is `False`; the MLP sees no such row."""
        (batch_size, length, dim), candidates = ops.shape(keys), ops.shape(query)[1]
        shape = (batch_size, candidates, length)
        pair = ops.nonzero(ops.reshape(ops.broadcast_to(mask, shape), (-1,)))[0]
        place = pair // length
        click = place // candidates * length + pair % length
        query, keys = (ops.reshape(x, (-1, dim)) for x in (query, keys))
        q, k = ops.take(query, place, axis=0), ops.take(keys, click, axis=0)
        wq, wk, wd, wp = ops.split(ops.convert_to_tensor(self.kernel), 4, axis=0)
        if 3 * dim <= self.hidden_units[0]:
            # Narrow rows cost less than sums of wide ones. The column of ones is there
            # because a sum over all rows is slow as the bias' gradient.
            rows = ops.concatenate([q, k, q * k, ops.ones_like(k[:, :1])], axis=-1)
            kernel = ops.concatenate([wq + wd, wk - wd, wp, self.bias[None]], axis=0)
            x = ops.matmul(rows, kernel)
        else:
            of_query = ops.matmul(query, wq + wd) + self.bias
            of_keys = ops.matmul(keys, wk - wd)
            x = ops.matmul(q * k, wp)
            x = x + ops.take(of_query, place, axis=0) + ops.take(of_keys, click, axis=0)
        scores = self._mlp(x, None, training)[:, 0]
        # `ops.scatter` adds, on PyTorch one number after the other.
        zeros = ops.zeros((batch_size * candidates * length,), scores.dtype)
        return ops.reshape(ops.scatter_update(zeros, pair[:, None], scores), shape)

    def _scores(self, query, keys, mask, training):
        """Scores `[B, N, T]`, 0 where the mask is `False`."""
        wq, wk, wd, wp = ops.split(ops.convert_to_tensor(self.kernel), 4, axis=0)
        kernels = (wk - wd) + query[..., None] * wp
        x = ops.matmul(keys[:, None], kernels)
        x = x + (ops.matmul(query, wq + wd) + self.bias)[:, :, None, :]
        shape = ops.shape(x)
        if mask is not None:
            mask = ops.reshape(ops.broadcast_to(mask, shape[:-1]), (-1,))
        # oneDNN overwrites memory in products `[B, 1, T, units] [units, u]`, which
        # Keras 3.14 gives TensorFlow as they are: uxlfoundation/oneDNN#4396.
        x = ops.reshape(x, (-1, shape[-1]))
        scores = self._mlp(x, mask, training)[:, 0]
        if mask is not None:
            scores = ops.where(mask, scores, ops.zeros_like(scores))
        return ops.reshape(scores, shape[:-1])

    def _mlp(self, x, mask, training):
        """The unit behind its first kernel and bias: `[rows, units]` to `[rows, 1]`."""
        for activation, dense in zip(self.activations, self.denses, strict=True):
            if self.activation == "dice":
                x = activation(x, mask=mask, training=training)
            else:
                x = activation(x)
            x = dense(x)
        return x

    def compute_mask(self, inputs, previous_mask):
        # That of the candidates; one candidate, [B, D], has none.
        return previous_mask if len(inputs.shape) == 3 else None

    def compute_output_shape(self, query_shape, keys_shape):
        return query_shape

    def compute_output_spec(
        self,
        query,
        keys,
        keys_mask=None,
        query_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        outputs = keras.KerasTensor(query.shape, self.compute_dtype)
        if not return_attention_scores:
            return outputs
        shape = (*query.shape[:-1], keys.shape[1])
        return outputs, keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        config.update(
            hidden_units=self.hidden_units,
            activation=self.activation,
            normalize=self.normalize,
        )
        return config


def _and(keys_mask, query_mask):
    """What of `[B, N, T]` counts: masks `[B, 1, T]` and `[B, N]`, `None` for all."""
    if query_mask is None:
        return keys_mask
    query_mask = ops.cast(query_mask, "bool")[:, :, None]
    if keys_mask is None:
        return query_mask
    return ops.logical_and(keys_mask, query_mask)


def _masked_softmax(scores, mask):
    dtype = scores.dtype
    scores = ops.cast(scores, keras.backend.result_type(dtype, "float32"))
    if mask is not None:
        scores = ops.where(mask, scores, -1e9)
    weights = ops.softmax(scores, axis=-1)
    if mask is not None:
        # Also where all of a row is masked and softmax gave equal weights.
        weights = ops.where(mask, weights, 0.0)
    return ops.cast(weights, dtype)
