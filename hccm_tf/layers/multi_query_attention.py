"""Multi-query attentive pooling: a history attended by image and by ids."""

import keras
from keras import ops

from hccm_tf.layers.din_attention import DINAttention


@keras.saving.register_keras_serializable(package="hccm_tf")
class MultiQueryAttention(keras.layers.Layer):
    """Sums a history of images twice, for a candidate's image and for its ids.

    ```
    output = [ sum_t a_image(query, k_t) k_t ; sum_t a_ids(W id_query + b, k_t) k_t ]
    ```

    Each channel has weights of its own, so that the ids may look for other images than
    the image does (the category "T-shirt" for images of T-shirts). Unlike the heads of
    multi-head attention, they have different queries.

    The paper fixes the two queries and the concatenation. Our choice: both `a` are
    `DINAttention`, whose unit compares vectors of one width, and therefore a linear
    layer brings `id_query` to the width of `keys`.

    Args:
        hidden_units: tuple of ints, see `DINAttention`. Defaults to `(80, 40)`.
        activation: `"dice"` (default) or the name of a Keras activation, see there.
        normalize: `None` (default) or `"softmax"`, see there.
        **kwargs: Args to pass to the base class.

    Call arguments:
        query: float tensor of shape `[B, D]`, or `[B, N, D]` for `N` candidates that
            share one history: their images.
        id_query: float tensor of shape `[B, E]` or `[B, N, E]`: their ids' embeddings.
        keys: float tensor of shape `[B, T, D]`, also the values.
        keys_mask: optional boolean tensor of shape `[B, T]`, `True` where a position
            counts. Masked positions have weight 0 and may hold any finite values.
        query_mask: optional boolean tensor of shape `[B, N]`, see `DINAttention`.
        training: Python boolean, passed on to Dice.

    Output:
        Tensor of shape `[B, 2 D]` or `[B, N, 2 D]`, in the layer's compute dtype. A
        history without any non-masked position gives zeros.

    Raises:
        ValueError: As `DINAttention` does, or if `id_query` has no static last
            dimension.

    Attributes:
        by_image: the `DINAttention` of the image.
        project: the `Dense` layer from `id_query` to the query of `by_ids`.
        by_ids: the `DINAttention` of the ids.

    Example:
    ```python
    image, ids = np.random.randn(2, 128), np.random.randn(2, 24)
    history = np.random.randn(2, 100, 128)
    layer = hccm_tf.layers.MultiQueryAttention()
    interest = layer(query=image, id_query=ids, keys=history)  # (2, 256)
    ```

    References:
    - [T. Ge et al., Image Matters, CIKM 2018](https://arxiv.org/abs/1711.06505),
      section 5.2, MultiQueryAttentivePooling
    """

    def __init__(
        self, hidden_units=(80, 40), activation="dice", normalize=None, **kwargs
    ):
        super().__init__(**kwargs)
        self.hidden_units = tuple(hidden_units)
        self.activation = activation
        self.normalize = normalize
        self.by_image, self.by_ids = (
            DINAttention(
                hidden_units, activation, normalize, dtype=self.dtype_policy, name=name
            )
            for name in ("by_image", "by_ids")
        )
        # As their parts. (Keras asks for this on GPUs.)
        self.supports_jit = self.by_image.supports_jit

    def build(self, query_shape, id_query_shape, keys_shape):
        if id_query_shape[-1] is None:
            raise ValueError(
                "The last dimension of `id_query` must be static. "
                f"Received: id_query.shape={id_query_shape}"
            )
        self.by_image.build(query_shape, keys_shape)
        self.project = keras.layers.Dense(
            keys_shape[-1], dtype=self.dtype_policy, name="project"
        )
        self.project.build(id_query_shape)
        self.by_ids.build(query_shape, keys_shape)

    def call(
        self, query, id_query, keys, keys_mask=None, query_mask=None, training=None
    ):
        masks = {"keys_mask": keys_mask, "query_mask": query_mask}
        parts = [
            attention(q, keys, **masks, training=training)
            for attention, q in (
                (self.by_image, query),
                (self.by_ids, self.project(id_query)),
            )
        ]
        return ops.concatenate(parts, axis=-1)

    def compute_mask(self, inputs, previous_mask):
        # That of the candidates; one candidate, [B, D], has none.
        return previous_mask if len(inputs.shape) == 3 else None

    def compute_output_shape(self, query_shape, id_query_shape, keys_shape):
        return (*query_shape[:-1], 2 * keys_shape[-1])

    def get_config(self):
        config = super().get_config()
        config.update(
            hidden_units=self.hidden_units,
            activation=self.activation,
            normalize=self.normalize,
        )
        return config
