"""Category prior: one value per position of a feature map."""

import keras
from keras import ops

from hccm_tf.layers.embedding import Embedding


@keras.saving.register_keras_serializable(package="hccm_tf")
class CategoryPrior(keras.layers.Layer):
    """Embeds a category as a vector of one value per position of a feature map.

    `v = E[category]`, with `E` of shape `[num_categories, h * w]`. Index 0 means that
    the category is unknown: its prior is the zero vector, and is not trained. The
    priors start as normal noise, which is our choice: they stand beside channels that
    are standardised.

    Args:
        num_categories: int. Number of indices, 0 included (largest index + 1).
        map_shape: tuple of two ints, the feature map's height and width.
        stddev: float, that of the noise with which priors start. Defaults to `1.0`.
        **kwargs: Args to pass to the base class.

    Call arguments:
        category: integer tensor of shape `[...]`.

    Output:
        Tensor of shape `[..., h * w]`, in the layer's compute dtype. Reshaped to
        `[..., h, w, 1]` it is a channel of the feature map.

    Raises:
        ValueError: If `num_categories` is not positive.

    Example:
    ```python
    layer = hccm_tf.layers.CategoryPrior(num_categories=1000, map_shape=(5, 5))
    prior = layer(np.array([3, 0, 17]))  # (3, 25); the second row is zero
    ```

    References:
    - [X. Chen et al., HCCM, SIGIR 2022](https://doi.org/10.1145/3477495.3531854),
      the `v` of Eq. 8-9
    """

    def __init__(self, num_categories, map_shape, stddev=1.0, **kwargs):
        super().__init__(**kwargs)
        if num_categories < 1:
            raise ValueError(
                "`num_categories` must be positive. "
                f"Received: num_categories={num_categories}"
            )
        self.num_categories = num_categories
        self.map_shape = tuple(map_shape)
        self.stddev = stddev
        height, width = self.map_shape
        self.embedding = Embedding(
            num_categories,
            height * width,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=stddev),
            dtype=self.dtype_policy,
            name="embedding",
        )

    def build(self, category_shape):
        self.embedding.build(category_shape)

    def call(self, category):
        known = ops.cast(ops.not_equal(category, 0), self.compute_dtype)
        return self.embedding(category) * ops.expand_dims(known, axis=-1)

    def compute_output_shape(self, category_shape):
        height, width = self.map_shape
        return (*category_shape, height * width)

    def get_config(self):
        config = super().get_config()
        config.update(
            num_categories=self.num_categories,
            map_shape=self.map_shape,
            stddev=self.stddev,
        )
        return config
