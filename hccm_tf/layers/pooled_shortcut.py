"""A shortcut past a trainable CNN, which the CNN joins through a gate."""

import keras
from keras import ops

from hccm_tf.layers.batch_normalization import BatchNormalization


@keras.saving.register_keras_serializable(package="hccm_tf")
class PooledShortcut(keras.layers.Layer):
    """Joins a CNN's image vector to a projection of the pooled feature map.

    ```
    output = mean over positions of F · W + g * (x - mean(x)) / std(x)
    ```

    `W` starts orthogonal and `g [D]` at 0, so that a new model has the fixed CNN's
    similarities, if D is at least c, and lets the trainable CNN in as far as it helps.
    A new CNN ends in an average of rectified values: all its images share a mean, two
    of them have a cosine near 1, and what differs between them is lost. Where the
    channels of F are standardised, both terms are centred.

    Args:
        momentum: float. Momentum of the moving averages of x. Defaults to `0.9`.
        **kwargs: Args to pass to the base class.

    Call arguments:
        images: float tensor of shape `[N, D]`, the CNN's x.
        feature_map: float tensor of shape `[N, h, w, c]`, its F.
        mask: optional boolean tensor of shape `[N]`, `True` where there is an image.
            Other rows give 0 and leave no trace in the statistics.
        training: Python boolean: batch statistics (`True`) or moving averages.

    Output:
        Tensor of the shape of `images`, in the layer's compute dtype.

    Example:
    ```python
    feature_map = np.random.randn(10, 5, 5, 96)
    images = hccm_tf.layers.HybridCNN()(feature_map)
    images = hccm_tf.layers.PooledShortcut()(images, feature_map)  # (10, 128)
    ```

    References:
    - [K. He et al., Deep Residual Learning, CVPR 2016](https://arxiv.org/abs/1512.03385)
    - a scale that starts at 0:
      [P. Goyal et al., 2017, section 5.1](https://arxiv.org/abs/1706.02677)
    """

    def __init__(self, momentum=0.9, **kwargs):
        super().__init__(**kwargs)
        self.momentum = momentum
        self.supports_masking = True

    def build(self, images_shape, feature_map_shape):
        policy = self.dtype_policy
        self.project = keras.layers.Dense(
            images_shape[-1],
            use_bias=False,
            kernel_initializer="orthogonal",
            dtype=policy,
            name="project",
        )
        self.project.build((None, feature_map_shape[-1]))
        self.gate = BatchNormalization(
            momentum=self.momentum,
            center=False,
            gamma_initializer="zeros",
            dtype=policy,
            name="gate",
        )
        self.gate.build(images_shape)

    def call(self, images, feature_map, mask=None, training=None):
        pooled = ops.mean(feature_map, axis=(1, 2))
        outputs = self.project(pooled)
        outputs = outputs + self.gate(images, mask=mask, training=training)
        if mask is None:
            return outputs
        return ops.where(mask[:, None], outputs, ops.zeros_like(outputs))

    def compute_output_shape(self, images_shape, feature_map_shape):
        return images_shape

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}
