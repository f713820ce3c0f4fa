"""Embedding that reads only the rows it is asked for."""

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@keras.saving.register_keras_serializable(package="hccm_tf")
class Embedding(keras.layers.Embedding):
    """`keras.layers.Embedding` whose time does not follow the table's size.

    `output = E[ids]`, with the weights, Args, masks and results of
    `keras.layers.Embedding`. On the TensorFlow backend, Keras' layer reads the table as
    a tensor, which copies it in each step once an optimizer updates single rows (see
    `hccm_tf.optimizers.LazyAdam`); this one gathers rows from the variable. On other
    backends the two are the same.

    Call arguments:
        inputs: tensor of shape `[...]`, indices from 0 to `input_dim` - 1; other than
            int32 or int64 is cast to int32.

    Output:
        Tensor of shape `[..., output_dim]`, in the layer's compute dtype.

    Example:
    ```python
    layer = hccm_tf.layers.Embedding(input_dim=5_000_000, output_dim=8)
    vectors = layer(np.array([[4, 1], [0, 17]]))  # (2, 2, 8)
    ```
    """

    def call(self, inputs):
        table = self.embeddings
        # It is none if it is quantized or has low-rank adapters.
        is_variable = isinstance(table, keras.Variable)
        if keras.backend.backend() != "tensorflow" or not is_variable:
            return super().call(inputs)
        if inputs.dtype not in ("int32", "int64"):
            inputs = tf.cast(inputs, "int32")
        return tf.cast(tf.gather(table.value, inputs), self.compute_dtype)
