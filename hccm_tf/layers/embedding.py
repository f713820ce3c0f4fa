"""Embedding that reads only the rows it is asked for, of one or several tables."""

import keras
import numpy as np

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


# Smaller tables stay whole.
MIN_SHARD_ROWS = 10_000


@keras.saving.register_keras_serializable(package="hccm_tf")
class Embedding(keras.layers.Embedding):
    """`keras.layers.Embedding` whose time does not follow the table's size.

    `output = E[ids]`, with the weights, Args, masks and results of
    `keras.layers.Embedding`. On the TensorFlow backend, Keras' layer reads the table as
    a tensor, which copies it in each step once an optimizer updates single rows (see
    `hccm_tf.optimizers.LazyAdam`); this one gathers rows from the variable. On other
    backends the two are the same.

    In the replicas of a `tf.distribute.Strategy` a row is gathered once for all the
    places that ask for it: it and its gradient cross the network once. For parameter
    servers, `shards` deals out the rows of a large table over several weights, as many
    rows to each, of which each server gets some. Saved weights are those of one table,
    and load with another number of shards.

    Args:
        input_dim: number of rows.
        output_dim: width of a row.
        shards: number of weights at most; a table is split so far that each has 10,000
            rows or more. Needs the TensorFlow backend. Defaults to 1.
        **kwargs: the other Args of `keras.layers.Embedding`.

    Call arguments:
        inputs: tensor of shape `[...]`, indices from 0 to `input_dim` - 1; other than
            int32 or int64 is cast to int32.

    Output:
        Tensor of shape `[..., output_dim]`, in the layer's compute dtype.

    Raises:
        ValueError: With several shards on another backend.

    Example:
    ```python
    layer = hccm_tf.layers.Embedding(input_dim=5_000_000, output_dim=8)
    vectors = layer(np.array([[4, 1], [0, 17]]))  # (2, 2, 8)
    ```
    """

    def __init__(self, input_dim, output_dim, *args, shards=1, **kwargs):
        super().__init__(input_dim, output_dim, *args, **kwargs)
        self.shards = shards
        self._num_tables = max(min(shards, input_dim // MIN_SHARD_ROWS), 1)
        if self._num_tables > 1 and keras.backend.backend() != "tensorflow":
            raise ValueError(
                "Several shards need the TensorFlow backend. "
                f"Received: shards={shards}, backend {keras.backend.backend()}"
            )

    def build(self, input_shape=None):
        if self._num_tables == 1:
            super().build(input_shape)
            return
        # Drawn as one table: an initializer gives the same rows each time.
        shape = self.input_dim, self.output_dim
        table = self.embeddings_initializer(shape, dtype=self.variable_dtype)
        # `tf.nn.embedding_lookup` splits rows alike.
        parts = np.array_split(table, self._num_tables)
        self._tables = [
            self.add_weight(
                shape=part.shape,
                initializer=lambda shape, dtype, part=part: tf.constant(part, dtype),
                # By this name optimizers know a table.
                name="embeddings",
                regularizer=self.embeddings_regularizer,
                constraint=self.embeddings_constraint,
            )
            for part in parts
        ]
        self.built = True

    def call(self, inputs):
        if self._num_tables > 1:
            tables = [table.value for table in self._tables]
        else:
            tables = self.embeddings
            # It is none if it is quantized or has low-rank adapters.
            is_variable = isinstance(tables, keras.Variable)
            if keras.backend.backend() != "tensorflow" or not is_variable:
                return super().call(inputs)
            tables = tables.value
        if inputs.dtype not in ("int32", "int64"):
            inputs = tf.cast(inputs, "int32")
        if tf.distribute.has_strategy():
            # Rows, and their gradients, go from process to process: each goes once.
            distinct, place = tf.unique(tf.reshape(inputs, [-1]))
            place = tf.ensure_shape(tf.reshape(place, tf.shape(inputs)), inputs.shape)
            rows = tf.gather(tf.nn.embedding_lookup(tables, distinct), place)
        else:
            rows = tf.nn.embedding_lookup(tables, inputs)
        return tf.cast(rows, self.compute_dtype)

    def save_own_variables(self, store):
        if self._num_tables == 1:
            super().save_own_variables(store)
            return
        store["0"] = np.concatenate(self._tables)

    def load_own_variables(self, store):
        if self._num_tables == 1:
            super().load_own_variables(store)
            return
        parts = np.array_split(store["0"], self._num_tables)
        for table, part in zip(self._tables, parts, strict=True):
            table.assign(part)

    def get_config(self):
        return {**super().get_config(), "shards": self.shards}
