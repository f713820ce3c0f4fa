"""The input of a column, whose name users have chosen."""

import keras


@keras.saving.register_keras_serializable(package="hccm_tf")
class ColumnInput(keras.layers.InputLayer):
    """An input layer whose own name no other layer of a graph can have.

    Inputs are found by their tensors' names. Layers need names of their own beside all
    others, those that Keras makes up for operations included, which a column may have.

    Args:
        batch_shape: tuple, the first of it `None`.
        dtype: string.
        column: name of the input.
    """

    def __init__(self, batch_shape, dtype, column):
        tensor = keras.KerasTensor(batch_shape, dtype, name=column)
        super().__init__(input_tensor=tensor, name=f"column.{column}")
        self.column = column

    def get_config(self):
        return {
            "batch_shape": self.batch_shape,
            "dtype": self.dtype,
            "column": self.column,
        }


def column_input(feature, shape):
    """The `keras.KerasTensor` of a feature's input.

    Args:
        feature: `hccm_tf.data.feature.Feature`.
        shape: tuple, without the batch's size.
    """
    dtype = feature.input_dtype
    return ColumnInput((None, *shape), dtype, feature.input_name).output
