"""SimTier: how many behaviours are how similar to a candidate."""

import keras
from keras import ops

from hccm_tf.layers.cosine_similarity import cosines


@keras.saving.register_keras_serializable(package="hccm_tf")
class SimilarityHistogram(keras.layers.Layer):
    """Counts the vectors of a history by their cosine with a candidate.

    With `n_i` the number of non-masked positions whose cosine falls into bin `i` of
    `num_bins` equal ones on `[-1, 1]`,

    ```
    output = concat_i( log(n_i + 1) * E[i] )
    ```

    `E` is learned, of shape `[num_bins, embedding_dim]`. A bin holds its lower edge and
    not its upper one, the last bin holds both, as in `numpy.histogram`. The cosine with
    a zero vector is 0. An empty history gives zeros.

    Counts are steps: no gradient flows through them, neither to `query` nor to `keys`,
    which need to be trained by something else. Only `E` is trained by this layer.

    The paper has the counts, concatenated with the model's other features. Its authors'
    code for a later model (https://github.com/TaoBao-MM/MUSE) has the logarithm, the
    vectors, their uniform start between 0 and 1 and bins of width 0.1. Which edge a bin
    holds is our choice.

    Args:
        num_bins: int, number of bins. Defaults to `20`, which makes them 0.1 wide.
        embedding_dim: int, width of a bin's vector. Defaults to `4`.
        **kwargs: Args to pass to the base class.

    Call arguments:
        query: float tensor of shape `[B, D]` or `[B, N, D]`.
        keys: float tensor of shape `[B, T, D]`.
        keys_mask: optional boolean tensor of shape `[B, T]` or `[B, N, T]`, `True`
            where a position counts. Masked positions may hold any finite values.

    Output:
        Tensor of shape `[B, num_bins * embedding_dim]` or `[B, N, num_bins *
        embedding_dim]`, in the layer's compute dtype.

    Raises:
        ValueError: If `num_bins` or `embedding_dim` is not positive.

    Example:
    ```python
    candidate = np.random.randn(2, 128)
    history = np.random.randn(2, 100, 128)
    layer = hccm_tf.layers.SimilarityHistogram()
    features = layer(query=candidate, keys=history)  # (2, 80)
    ```

    References:
    - [X.-R. Sheng et al., Enhancing Taobao Display Advertising with Multimodal
      Representations, CIKM 2024](https://arxiv.org/abs/2407.19467), SimTier
    """

    def __init__(self, num_bins=20, embedding_dim=4, **kwargs):
        super().__init__(**kwargs)
        for name, value in (("num_bins", num_bins), ("embedding_dim", embedding_dim)):
            if value < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        self.num_bins = num_bins
        self.embedding_dim = embedding_dim

    def build(self, query_shape, keys_shape):
        self.vectors = self.add_weight(
            shape=(self.num_bins, self.embedding_dim),
            initializer=keras.initializers.RandomUniform(0.0, 1.0),
            name="vectors",
        )

    def call(self, query, keys, keys_mask=None):
        values, mask = cosines(query, keys, keys_mask)
        place = ops.floor((values + 1.0) * (self.num_bins / 2))
        # Also the last bin's upper edge, and what rounding pushes over an edge.
        place = ops.clip(place, 0, self.num_bins - 1)
        bins = ops.arange(self.num_bins, dtype=place.dtype)
        inside = ops.logical_and(place[..., None] == bins, mask[..., None])
        counts = ops.sum(ops.cast(inside, values.dtype), axis=2)
        features = ops.log1p(counts)[..., None] * ops.cast(self.vectors, counts.dtype)
        if len(query.shape) == 2:
            features = features[:, 0]
        shape = (*ops.shape(query)[:-1], self.num_bins * self.embedding_dim)
        return ops.cast(ops.reshape(features, shape), self.compute_dtype)

    def compute_mask(self, inputs, previous_mask):
        # That of the candidates; one candidate, [B, D], has none.
        return previous_mask if len(inputs.shape) == 3 else None

    def compute_output_shape(self, query_shape, keys_shape):
        return (*query_shape[:-1], self.num_bins * self.embedding_dim)

    def get_config(self):
        config = super().get_config()
        config.update(num_bins=self.num_bins, embedding_dim=self.embedding_dim)
        return config
