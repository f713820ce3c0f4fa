"""Spatial attention with an optional prior map."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="hccm_tf")
class SpatialAttention(keras.layers.Layer):
    """Weighs the positions of a feature map, optionally steered by a prior map.

    The channels are squeezed by their mean and their maximum, the prior map is
    resized bilinearly to the feature map's height and width and appended, and one
    bias-free convolution gives each position a weight between 0 and 1:

    ```
    A = sigmoid( Conv_kxk([mean_c F; max_c F; resize(a)]) )
    output = A * F
    ```

    Without a prior map this is CBAM's spatial attention; with a one-channel map
    embedded from the category it is that of CSCNN.

    Args:
        kernel_size: int. Height and width of the convolution. Defaults to `7`.
        **kwargs: Args to pass to the base class.

    Call arguments:
        feature_map: float tensor of shape `[..., h, w, c]`; `h` and `w` static.
        prior_map: optional float tensor of shape `[..., h', w', 1]`; `h'` and `w'`
            static. Once the layer is built with a prior map, it needs one in each call.

    Output:
        Tensor of the shape of `feature_map`, in the layer's compute dtype.

    Raises:
        ValueError: If `h`, `w`, `h'` or `w'` is not static, or if `prior_map` has not
            exactly one channel.

    Example:
    ```python
    feature_map = np.random.rand(2, 14, 14, 48)
    category_map = np.random.rand(2, 7, 7, 1)
    layer = hccm_tf.layers.SpatialAttention()
    output = layer(feature_map=feature_map, prior_map=category_map)  # (2, 14, 14, 48)
    ```

    References:
    - [H. Liu et al., CSCNN, KDD 2020](https://arxiv.org/abs/2006.10337)
    - [S. Woo et al., CBAM, ECCV 2018](https://arxiv.org/abs/1807.06521), Eq. 3
    """

    def __init__(self, kernel_size=7, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.conv = keras.layers.Conv2D(
            filters=1,
            kernel_size=kernel_size,
            padding="same",
            data_format="channels_last",
            activation="sigmoid",
            use_bias=False,
            dtype=self.dtype_policy,
            name="conv",
        )

    def build(self, feature_map_shape, prior_map_shape=None):
        sizes = tuple(feature_map_shape[-3:-1])
        if prior_map_shape is not None:
            sizes += tuple(prior_map_shape[-3:-1])
        if None in sizes or (prior_map_shape is not None and prior_map_shape[-1] != 1):
            raise ValueError(
                "`feature_map` and `prior_map` need a static height and width, and "
                "`prior_map` one channel. "
                f"Received: feature_map.shape={feature_map_shape}, "
                f"prior_map.shape={prior_map_shape}"
            )
        height, width = sizes[:2]
        self.conv.build((None, height, width, 2 if prior_map_shape is None else 3))

    def call(self, feature_map, prior_map=None):
        height, width = feature_map.shape[-3:-1]
        squeezed = [
            ops.mean(feature_map, axis=-1, keepdims=True),
            ops.max(feature_map, axis=-1, keepdims=True),
        ]
        # Convolution and resizing take exactly one leading dimension.
        squeezed = [ops.reshape(x, (-1, height, width, 1)) for x in squeezed]
        if prior_map is not None:
            prior_map = ops.reshape(prior_map, (-1, *prior_map.shape[-3:]))
            prior_map = ops.image.resize(
                prior_map,
                (height, width),
                interpolation="bilinear",
                data_format="channels_last",
            )
            # Some backends resize in float32 whatever the input.
            squeezed.append(ops.cast(prior_map, self.compute_dtype))
        weights = self.conv(ops.concatenate(squeezed, axis=-1))
        leading = ops.shape(feature_map)[:-1]
        return feature_map * ops.reshape(weights, (*leading, 1))

    def compute_output_shape(self, feature_map_shape, prior_map_shape=None):
        return feature_map_shape

    def get_config(self):
        config = super().get_config()
        config.update(kernel_size=self.kernel_size)
        return config
