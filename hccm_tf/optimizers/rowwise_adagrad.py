"""Adagrad with one accumulator for each embedding row."""

import keras
from keras import ops

from hccm_tf.optimizers.rows import (
    at_rows,
    is_sparse,
    is_table,
    refuse,
    sum_duplicates,
    take_rows,
)


@keras.saving.register_keras_serializable(package="hccm_tf")
class RowwiseAdagrad(keras.optimizers.Adagrad):
    """Adagrad that keeps one number for each row of an embedding table.

    For each row `r` of width `D` that occurs in the batch, with `g` the sum of its
    gradients,

    ```
    a[r] = a[r] + sum(g^2) / D
    w[r] = w[r] - lr g / sqrt(a[r] + epsilon)
    ```

    Other rows do not change. State is one number a row where Keras' Adagrad has `D`
    and Adam `2 D`. All other weights get Keras' Adagrad. The tables are those of
    `keras.layers.Embedding` and its subclasses, known by their name; for time that
    follows the batch and not the table, see `LazyAdam`.

    Args:
        learning_rate: float, or a `keras.optimizers.schedules.LearningRateSchedule`.
            Defaults to `0.001`.
        **kwargs: the other Args of `keras.optimizers.Adagrad`.

    Raises:
        ValueError: With `clipnorm`, `clipvalue` or `global_clipnorm`.

    Example:
    ```python
    optimizer = hccm_tf.optimizers.RowwiseAdagrad(0.02)
    model.compile(optimizer, loss="binary_crossentropy")
    ```

    References:
    - [J. Duchi et al., Adagrad, JMLR 2011](https://jmlr.org/papers/v12/duchi11a.html)
    - [M. Naumov et al., DLRM, 2019](https://arxiv.org/abs/1906.00091), whose code has
      the row-wise form
    """

    def __init__(self, learning_rate=0.001, **kwargs):
        super().__init__(learning_rate, **kwargs)
        refuse(self, "clipnorm", "clipvalue", "global_clipnorm")

    def build(self, var_list):
        if self.built:
            return
        # Adagrad's own `build` would make accumulators as large as the tables.
        super(keras.optimizers.Adagrad, self).build(var_list)
        initializer = keras.initializers.Constant(self.initial_accumulator_value)
        self._are_tables = [is_table(variable) for variable in var_list]
        self._accumulators = [
            self.add_variable(
                (variable.shape[0], 1) if is_a_table else variable.shape,
                initializer,
                dtype=variable.dtype,
                name=f"{variable.path.replace('/', '_')}_accumulator",
            )
            for variable, is_a_table in zip(var_list, self._are_tables, strict=True)
        ]

    def update_step(self, gradient, variable, learning_rate):
        # As Keras' own optimizers do, from their non-public members.
        index = self._get_variable_index(variable)
        accumulator = self._accumulators[index]
        if is_sparse(gradient):
            rows, gradient = sum_duplicates(gradient)
        else:
            rows = None
        if not self._are_tables[index]:
            gradient = gradient if rows is None else at_rows(gradient, rows)
            super().update_step(gradient, variable, learning_rate)
            return
        squares = ops.mean(ops.square(gradient), axis=-1, keepdims=True)
        rate = ops.cast(learning_rate, gradient.dtype)
        if rows is None:
            total = accumulator + squares
            self.assign(accumulator, total)
            self.assign_sub(variable, rate * gradient / ops.sqrt(total + self.epsilon))
        else:
            total = take_rows(accumulator, rows) + squares
            change = rate * gradient / ops.sqrt(total + self.epsilon)
            self.assign(accumulator, at_rows(total, rows))
            self.assign_sub(variable, at_rows(change, rows))
