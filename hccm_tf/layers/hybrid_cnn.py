"""The trainable part of the hybrid CNN, with category prior."""

import keras
from keras import ops

from hccm_tf.layers.batch_normalization import BatchNormalization
from hccm_tf.layers.category_prior import CategoryPrior
from hccm_tf.layers.channel_attention import ChannelAttention

_BACKEND = keras.backend.backend()
# Values of the prior beside a map of one position.
_VECTOR_PRIOR = 16


@keras.saving.register_keras_serializable(package="hccm_tf")
class HybridCNN(keras.layers.Layer):
    """Turns a fixed CNN's feature map and a category into an image vector.

    ```
    v = CategoryPrior(category)
    M = ChannelAttention's weights for feature map F and prior v
    F_bar = concat_channels(M * F, reshape(v, [h, w, 1]))
    output = CNN_trainable(F_bar)
    ```

    Without category (HCM) it is `CNN_trainable(F)`: no attention and no prior. Two
    arguments leave out a part, or add the attention to HCM, for ablations:

    | category | channel_attention | prior_channel | `F_bar` |
    |---|---|---|---|
    | no | no | | `F` (HCM) |
    | no | yes | | `M * F`, `M` without prior: CBAM's channel attention |
    | yes | yes | yes | `concat_channels(M * F, v)` (HCCM) |
    | yes | no | yes | `concat_channels(F, v)` |
    | yes | yes | no | `M * F` |

    The paper is silent about the form of `CNN_trainable`; this one is our choice:
    `Conv1x1 -> BatchNorm -> relu -> Conv kxk -> BatchNorm -> relu -> global average
    pooling -> Dense`. Its second convolution sees neighbouring positions and stands
    behind a non-linearity; a linear one before the pooling would be a fixed CNN with a
    dense layer in disguise.

    Of a map of one position, a vector, `CNN_trainable` is an MLP: there is nothing for
    a kernel to see, so that it is 1 x 1, and a prior of one value per position would
    say little of a category, so that it has 16 values, 16 channels of `F_bar`.

    Size with the default arguments, by feature map, without the priors' embedding of
    `num_categories * h * w`:

    | feature map | category | parameters (trainable) | multiply-adds |
    |---|---|---|---|
    | 5 x 5 x 96 | no | 96,768 | 0.83 million |
    | 5 x 5 x 96 | yes | 98,236 | 0.84 million |
    | 7 x 7 x 96 | no | 96,768 | 1.50 million |
    | 7 x 7 x 96 | yes | 98,380 | 1.51 million |

    Args:
        embedding_dim: int. Size of the image vector. Defaults to `128`.
        num_categories: optional int. Number of category indices, 0 (unknown) included.
            `None` (default) means that the layer takes no category.
        filters: tuple of two ints, the convolutions' filters. Defaults to `(64, 128)`.
        kernel_size: int, that of the second convolution. Defaults to `3`.
        strides: int, that of the second convolution. Defaults to `2`.
        reduction_ratio: int, see `ChannelAttention`. Defaults to `16`.
        momentum: float. Momentum of the batch normalizations' moving averages. Defaults
            to `0.9`, as 0.99 leaves them stale for an epoch.
        channel_attention: bool, whether the channels are weighed. `None` (default)
            means if the layer takes a category.
        prior_channel: bool, whether the prior is appended as a channel, if the layer
            takes a category. Defaults to `True`.
        even_attention: bool, see `ChannelAttention`'s `even_start`. Defaults to
            `False`.
        prior_stddev: float, see `CategoryPrior`. Defaults to `1.0`.
        **kwargs: Args to pass to the base class.

    Call arguments:
        feature_map: float tensor of shape `[..., h, w, c]`; `h`, `w` and `c` static.
        category: integer tensor of shape `[...]`, given if and only if the layer has
            `num_categories`.
        feature_map_mask: optional boolean tensor of shape `[...]`, `True` where there
            is an image. Other rows give 0 and leave no trace in the normalization's
            statistics.
        training: Python boolean: batch statistics (`True`) or moving averages.

    Output:
        Tensor of shape `[..., embedding_dim]`, in the layer's compute dtype.

    Raises:
        ValueError: If `h`, `w` or `c` is not static, if `category` is given without
            `num_categories` or missing with it, or if it would have no part in the
            output.

    Attributes:
        prior: the `CategoryPrior`, `None` if there is none.
        attention: the `ChannelAttention`, `None` if there is none.

    Example:
    ```python
    feature_map = np.random.rand(2, 10, 5, 5, 96)
    category = np.random.randint(1, 50, size=(2, 10))
    layer = hccm_tf.layers.HybridCNN(num_categories=50)
    images = layer(feature_map=feature_map, category=category)  # (2, 10, 128)
    ```

    References:
    - [X. Chen et al., HCCM, SIGIR 2022](https://doi.org/10.1145/3477495.3531854),
      Eq. 8-13
    """

    def __init__(
        self,
        embedding_dim=128,
        num_categories=None,
        filters=(64, 128),
        kernel_size=3,
        strides=2,
        reduction_ratio=16,
        momentum=0.9,
        channel_attention=None,
        prior_channel=True,
        even_attention=False,
        prior_stddev=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        parts = channel_attention is not False or prior_channel
        if num_categories is not None and not parts:
            raise ValueError(
                "The category needs a part: `channel_attention`, `prior_channel` or "
                f"both. Received: channel_attention={channel_attention}, "
                f"prior_channel={prior_channel}"
            )
        # XLA has no arrays whose size depends on a mask. (Keras asks for it on GPUs.)
        self.supports_jit = _BACKEND != "tensorflow"
        self.embedding_dim = embedding_dim
        self.num_categories = num_categories
        self.filters = tuple(filters)
        self.kernel_size = kernel_size
        self.strides = strides
        self.reduction_ratio = reduction_ratio
        self.momentum = momentum
        self.channel_attention = channel_attention
        self.prior_channel = prior_channel
        self.even_attention = even_attention
        self.prior_stddev = prior_stddev

    def build(self, feature_map_shape, category_shape=None):
        height, width, channels = map_shape = tuple(feature_map_shape[-3:])
        is_vector = map_shape[:2] == (1, 1)
        if None in map_shape:
            raise ValueError(
                "The last three dimensions of `feature_map` must be static. "
                f"Received: feature_map.shape={feature_map_shape}"
            )
        policy = self.dtype_policy
        self.prior = self.attention = prior_shape = None
        has_category = self.num_categories is not None
        if has_category:
            self.prior = CategoryPrior(
                self.num_categories,
                (1, _VECTOR_PRIOR) if is_vector else (height, width),
                self.prior_stddev,
                dtype=policy,
                name="prior",
            )
            self.prior.build((None,))
            prior_shape = self.prior.compute_output_shape((None,))
            if self.prior_channel:
                channels += prior_shape[-1] // (height * width)
        attends = self.channel_attention
        if attends is None:
            attends = has_category
        if attends:
            self.attention = ChannelAttention(
                self.reduction_ratio,
                even_start=self.even_attention,
                dtype=policy,
                name="attention",
            )
            self.attention.build((None, *map_shape), prior_shape)

        shape = self._build_convolutions((None, height, width, channels))
        self.project = keras.layers.Dense(
            self.embedding_dim, dtype=policy, name="project"
        )
        self.project.build((None, shape[-1]))

    def _build_convolutions(self, shape):
        """Builds the convolutions on maps of a shape; the shape of what they give."""
        policy = self.dtype_policy
        spatial = 1 if shape[1:3] == (1, 1) else self.kernel_size
        sizes = [(1, 1), (spatial, self.strides)]
        self.convs, self.norms = [], []
        for i, (filters, (kernel_size, strides)) in enumerate(
            zip(self.filters, sizes, strict=True), start=1
        ):
            # The normalization's offset makes a bias redundant.
            conv = keras.layers.Conv2D(
                filters,
                kernel_size,
                strides=strides,
                padding="same",
                data_format="channels_last",
                use_bias=False,
                dtype=policy,
                name=f"conv{i}",
            )
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
            norm = BatchNormalization(
                momentum=self.momentum, dtype=policy, name=f"norm{i}"
            )
            norm.build(shape)
            self.convs.append(conv)
            self.norms.append(norm)
        return shape

    def call(self, feature_map, category=None, feature_map_mask=None, training=None):
        self._check_category(category)
        leading = ops.shape(feature_map)[:-3]
        height, width, channels = feature_map.shape[-3:]
        # Convolutions take exactly one leading dimension.
        x = ops.reshape(feature_map, (-1, height, width, channels))
        if category is not None:
            category = ops.reshape(category, (-1,))
        mask = feature_map_mask
        if mask is not None:
            mask = ops.reshape(mask, (-1,))
        if mask is not None and training and _BACKEND == "tensorflow":
            images = self._encode_unmasked(x, category, mask)
        else:
            images = self._encode(x, category, mask, training)
        if mask is not None:
            images = ops.where(mask[:, None], images, ops.zeros_like(images))
        return ops.reshape(images, (*leading, self.embedding_dim))

    def _encode_unmasked(self, x, category, mask):
        """The same in training, without a mask, so that the normalization is fused."""
        # All of them if there is no image: oneDNN's convolutions need one.
        there = ops.any(mask)
        rows = ops.nonzero(ops.logical_or(mask, ops.logical_not(there)))[0]
        if category is not None:
            category = ops.take(category, rows, axis=0)
        images = self._encode(ops.take(x, rows, axis=0), category, None, True, there)
        return ops.scatter(rows[:, None], images, (ops.shape(x)[0], self.embedding_dim))

    def _encode(self, x, category, mask, training, update=True):
        """Images `[N, embedding_dim]` from maps `[N, h, w, c]`."""
        v = None if category is None else self.prior(category)
        if self.attention is not None:
            x = self.attention(x, prior=v)
        if v is not None and self.prior_channel:
            height, width = x.shape[1:3]
            v = ops.reshape(v, (-1, height, width, v.shape[-1] // (height * width)))
            x = ops.concatenate([x, v], axis=-1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            positions = mask
            if mask is not None:
                positions = ops.broadcast_to(mask[:, None, None], ops.shape(x)[:-1])
            x = norm(x, mask=positions, training=training, update=update)
            x = ops.relu(x)
        return self.project(ops.mean(x, axis=(1, 2)))

    def _check_category(self, category):
        if (category is None) != (self.num_categories is None):
            raise ValueError(
                "`category` must be given if and only if the layer has "
                "`num_categories`. "
                f"Received: category of shape {getattr(category, 'shape', category)}, "
                f"num_categories={self.num_categories}"
            )

    def compute_output_shape(self, feature_map_shape, category_shape=None):
        self._check_category(category_shape)
        return (*feature_map_shape[:-3], self.embedding_dim)

    def get_config(self):
        config = super().get_config()
        config.update(
            embedding_dim=self.embedding_dim,
            num_categories=self.num_categories,
            filters=self.filters,
            kernel_size=self.kernel_size,
            strides=self.strides,
            reduction_ratio=self.reduction_ratio,
            momentum=self.momentum,
            channel_attention=self.channel_attention,
            prior_channel=self.prior_channel,
            even_attention=self.even_attention,
            prior_stddev=self.prior_stddev,
        )
        return config
