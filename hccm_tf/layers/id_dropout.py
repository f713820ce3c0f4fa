"""Random replacement of ids by the out-of-vocabulary id."""

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@keras.saving.register_keras_serializable(package="hccm_tf")
class IdDropout(keras.layers.Layer):
    """Replaces ids at random by the out-of-vocabulary id, in training only.

    Ids that are rare or unseen in training share one out-of-vocabulary embedding.
    This layer trains that embedding on all kinds of items, and keeps a model from
    relying on ids that it will not know later. Id 0 is padding and stays.

    With `num_ids` each id has a rate of its own, so that rare ones, of which a few
    impressions would make whatever fits them, can be replaced more often:
    `x / (x + n)` for an id that occurs n times (Kiperwasser and Goldberg, with words).

    Args:
        rate: float between 0 and 1, the probability that an id is replaced.
        oov_index: int. The id that replaces. Defaults to `1`.
        seed: optional int, the random seed.
        num_ids: optional int, the number of ids, 0 included, that have rates of their
            own.
        **kwargs: Args to pass to the base class.

    Call arguments:
        ids: integer tensor of any shape.
        training: Python boolean. If it is not `True`, ids pass unchanged.

    Output:
        Tensor of the shape and dtype of `ids`.

    Raises:
        ValueError: If `rate` is not between 0 and 1, or `oov_index` is not positive.

    Attributes:
        rates: float weight `[num_ids]`, not trained, the rate of each id. It is to be
            assigned once the layer is built; `rate` until then.

    Example:
    ```python
    layer = hccm_tf.layers.IdDropout(rate=0.2)
    ids = layer(np.array([[5, 7, 0, 0]]), training=True)  # for example [[1, 7, 0, 0]]
    ```

    References:
    - [E. Kiperwasser and Y. Goldberg, TACL 2016, section 4.3](https://aclanthology.org/Q16-1023)
    """

    def __init__(self, rate, oov_index=1, seed=None, num_ids=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not 0 <= rate <= 1:
            raise ValueError(f"`rate` must be between 0 and 1. Received: rate={rate}")
        if oov_index < 1:
            raise ValueError(
                "`oov_index` must be positive, as 0 is padding. "
                f"Received: oov_index={oov_index}"
            )
        self.rate = rate
        self.oov_index = oov_index
        self.seed = seed
        self.num_ids = num_ids
        self.supports_masking = True
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, ids_shape):
        if self.num_ids is not None:
            self.rates = self.add_weight(
                shape=(self.num_ids,),
                initializer=keras.initializers.Constant(self.rate),
                trainable=False,
                dtype="float32",
                name="rates",
            )

    def call(self, ids, training=None):
        if not training or (self.rate == 0 and self.num_ids is None):
            return ids
        draw = keras.random.uniform(
            ops.shape(ids), dtype="float32", seed=self.seed_generator
        )
        replace = ops.logical_and(draw < self._rate_of(ids), ops.not_equal(ids, 0))
        return ops.where(replace, ops.cast(self.oov_index, ids.dtype), ids)

    def _rate_of(self, ids):
        if self.num_ids is None:
            return self.rate
        if keras.backend.backend() == "tensorflow":
            # From the variable: read whole, it would cross the network of a cluster.
            return tf.gather(self.rates.value, ids)
        return ops.take(self.rates, ids, axis=0)

    def compute_output_shape(self, ids_shape):
        return ids_shape

    def compute_output_spec(self, ids, training=None):
        # The default would announce the compute dtype, a float.
        return keras.KerasTensor(ids.shape, dtype=ids.dtype)

    def get_config(self):
        config = super().get_config()
        config.update(
            rate=self.rate,
            oov_index=self.oov_index,
            seed=self.seed,
            num_ids=self.num_ids,
        )
        return config
