"""Channel attention with an optional prior."""

import keras
from keras import ops

_POOLINGS = {"avg": ops.mean, "max": ops.max}


@keras.saving.register_keras_serializable(package="hccm_tf")
class ChannelAttention(keras.layers.Layer):
    """Weighs the channels of a feature map, optionally steered by a prior.

    The spatial dimensions are squeezed by each pooling, the prior is appended, and
    one MLP shared by all poolings gives each channel a weight between 0 and 1:

    ```
    M = sigmoid( sum over poolings of MLP([pool(F); v]) )
    output = M * F
    MLP = Dense(max(1, c // reduction_ratio), relu) -> Dense(c)
    ```

    The same layer covers four published forms:

    - SE (squeeze and excitation): `pooling=("avg",)`, no prior.
    - CBAM's channel attention: `pooling=("avg", "max")`, no prior.
    - HCCM and CSCNN: `pooling=("avg", "max")`, and an embedding of the image's
      category as the prior.

    Args:
        reduction_ratio: int. The MLP's hidden layer has `c // reduction_ratio` units,
            at least one. Defaults to `16`.
        pooling: tuple of `"avg"` and `"max"`, each at most once: how the spatial
            dimensions are squeezed. Defaults to `("avg", "max")`.
        even_start: bool, whether all weights are 1/2 at the start, by a last layer of
            zeros. Defaults to `False`.
        **kwargs: Args to pass to the base class.

    Call arguments:
        feature_map: float tensor of shape `[..., h, w, c]`.
        prior: optional float tensor of shape `[..., p]`. Once the layer is built with
            a prior, it needs one in each call.
        return_attention_scores: whether to return M too.

    Output:
        Tensor of the shape of `feature_map`, in the layer's compute dtype. With
        `return_attention_scores` a tuple of it and M, `[..., c]`.

    Raises:
        ValueError: If `reduction_ratio` is not positive, if `pooling` is empty, repeats
            a name or has an unknown one, or if `c` or `p` is not static.

    Example:
    ```python
    feature_map = np.random.rand(2, 5, 5, 96)
    category_vector = np.random.rand(2, 25)
    layer = hccm_tf.layers.ChannelAttention()
    output = layer(feature_map=feature_map, prior=category_vector)  # (2, 5, 5, 96)
    ```

    References:
    - [X. Chen et al., HCCM, SIGIR 2022](https://doi.org/10.1145/3477495.3531854),
      Eq. 8-9
    - [H. Liu et al., CSCNN, KDD 2020](https://arxiv.org/abs/2006.10337)
    - [S. Woo et al., CBAM, ECCV 2018](https://arxiv.org/abs/1807.06521)
    - [J. Hu et al., SE, CVPR 2018](https://arxiv.org/abs/1709.01507)
    """

    def __init__(
        self, reduction_ratio=16, pooling=("avg", "max"), even_start=False, **kwargs
    ):
        super().__init__(**kwargs)
        if reduction_ratio < 1:
            raise ValueError(
                "`reduction_ratio` must be at least 1. "
                f"Received: reduction_ratio={reduction_ratio}"
            )
        names = [pooling] if isinstance(pooling, str) else list(pooling)
        if not names or len(set(names)) < len(names) or set(names) - set(_POOLINGS):
            raise ValueError(
                "`pooling` must be a non-empty tuple of 'avg' and 'max', each at most "
                f"once. Received: pooling={pooling}"
            )
        self.reduction_ratio = reduction_ratio
        self.pooling = tuple(names)
        self.even_start = even_start

    def build(self, feature_map_shape, prior_shape=None):
        channels = feature_map_shape[-1]
        prior_size = 0 if prior_shape is None else prior_shape[-1]
        if channels is None or prior_size is None:
            raise ValueError(
                "The last dimension of `feature_map` and `prior` must be static. "
                f"Received: feature_map.shape={feature_map_shape}, "
                f"prior.shape={prior_shape}"
            )
        units = max(1, channels // self.reduction_ratio)
        self.hidden = keras.layers.Dense(
            units, activation="relu", dtype=self.dtype_policy, name="hidden"
        )
        self.hidden.build((None, channels + prior_size))
        self.logits = keras.layers.Dense(
            channels,
            kernel_initializer="zeros" if self.even_start else "glorot_uniform",
            dtype=self.dtype_policy,
            name="logits",
        )
        self.logits.build((None, units))

    def call(self, feature_map, prior=None, return_attention_scores=False):
        logits = 0.0
        for name in self.pooling:
            squeezed = _POOLINGS[name](feature_map, axis=(-3, -2))
            if prior is not None:
                squeezed = ops.concatenate([squeezed, prior], axis=-1)
            logits = logits + self.logits(self.hidden(squeezed))
        weights = ops.sigmoid(logits)
        outputs = feature_map * weights[..., None, None, :]
        return (outputs, weights) if return_attention_scores else outputs

    def compute_output_shape(self, feature_map_shape, prior_shape=None):
        return feature_map_shape

    def compute_output_spec(
        self, feature_map, prior=None, return_attention_scores=False
    ):
        outputs = keras.KerasTensor(feature_map.shape, self.compute_dtype)
        if not return_attention_scores:
            return outputs
        shape = (*feature_map.shape[:-3], feature_map.shape[-1])
        return outputs, keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        config.update(
            reduction_ratio=self.reduction_ratio,
            pooling=self.pooling,
            even_start=self.even_start,
        )
        return config
