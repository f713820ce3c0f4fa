"""Embedding whose rare rows stay near the row of unknown ids."""

import keras
from keras import ops

from hccm_tf.layers.embedding import Embedding

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@keras.saving.register_keras_serializable(package="hccm_tf")
class ShrunkEmbedding(keras.layers.Layer):
    """Trusts the row of an id as far as the id was seen in training.

    For an id that occurs n times, with `E` as in `hccm_tf.layers.Embedding`,

    ```
    output = n / (n + s) E[id] + s / (n + s) E[oov]
    ```

    An id that was never seen is the out-of-vocabulary row, a frequent one its own, and
    what lies between moves from one to the other, in training as in inference. A rare
    id's own row, of which a few impressions would make whatever fits them, counts
    little. It is the estimate of a mean that is shrunk to that of all (James and Stein,
    1961), with s the number of impressions at which an id's own row counts half.

    Args:
        input_dim: number of rows.
        output_dim: width of a row.
        shrinkage: float, the `s` of the formula, at least 0.
        oov_index: int, the row of unknown ids. Defaults to `1`.
        shards: int, see `hccm_tf.layers.Embedding`. Defaults to `1`.
        **kwargs: Args to pass to the base class.

    Call arguments:
        inputs: integer tensor of shape `[...]`.

    Output:
        Tensor of shape `[..., output_dim]`, in the layer's compute dtype.

    Raises:
        ValueError: If `shrinkage` is negative.

    Attributes:
        counts: float weight `[input_dim]`, the n of each row, not trained. It is to be
            assigned once the layer is built; 0 until then.

    Example:
    ```python
    layer = hccm_tf.layers.ShrunkEmbedding(4, 8, shrinkage=20)
    layer.build((None,))
    layer.counts.assign([0, 0, 3, 5000])
    vectors = layer(np.array([[2, 3]]))  # (1, 2, 8)
    ```
    """

    def __init__(
        self,
        input_dim,
        output_dim,
        shrinkage,
        oov_index=1,
        shards=1,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        if not shrinkage >= 0:
            raise ValueError(
                f"`shrinkage` must be at least 0. Received: shrinkage={shrinkage}"
            )
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.shrinkage = shrinkage
        self.oov_index = oov_index
        self.shards = shards
        self.embedding = Embedding(
            input_dim,
            output_dim,
            shards=shards,
            dtype=self.dtype_policy,
            name="embedding",
        )

    def build(self, inputs_shape):
        self.embedding.build(inputs_shape)
        self.counts = self.add_weight(
            shape=(self.input_dim,),
            initializer="zeros",
            trainable=False,
            dtype="float32",
            name="counts",
        )

    def call(self, inputs):
        rows = self.embedding(inputs)
        unknown = self.embedding(ops.full((1,), self.oov_index, dtype="int32"))[0]
        counts = self._counts_of(inputs)
        # Of an id without a count, and of no shrinkage at all, 0 / 0.
        trust = counts / ops.maximum(counts + self.shrinkage, 1e-6)
        trust = ops.cast(trust, rows.dtype)[..., None]
        return unknown + trust * (rows - unknown)

    def _counts_of(self, ids):
        if keras.backend.backend() != "tensorflow":
            return ops.take(self.counts, ids, axis=0)
        if ids.dtype not in ("int32", "int64"):
            ids = ops.cast(ids, "int32")
        # From the variable: read whole, it would cross the network of a cluster.
        return tf.gather(self.counts.value, ids)

    def compute_output_shape(self, inputs_shape):
        return (*inputs_shape, self.output_dim)

    def get_config(self):
        config = super().get_config()
        config.update(
            input_dim=self.input_dim,
            output_dim=self.output_dim,
            shrinkage=self.shrinkage,
            oov_index=self.oov_index,
            shards=self.shards,
        )
        return config
