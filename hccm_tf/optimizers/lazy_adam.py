"""Adam for large embedding tables."""

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
class LazyAdam(keras.optimizers.Adam):
    """Adam that updates only the embedding rows which the batch touched.

    For each row `r` that occurs in the batch, with `g` the sum of its gradients, `t`
    the optimizer's step and all else as in `keras.optimizers.Adam`,

    ```
    m[r] = beta_1 m[r] + (1 - beta_1) g
    v[r] = beta_2 v[r] + (1 - beta_2) g^2
    w[r] = w[r] - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) m[r] / (sqrt(v[r]) + epsilon)
    ```

    Other rows keep `w`, `m` and `v`, while Keras' Adam decays their moments and moves
    them on in every step. Weights whose gradients are dense get Keras' Adam.

    On the TensorFlow backend, where the gradients of embeddings are row-sparse, time
    follows the batch and not the table. (For that use `hccm_tf.layers.Embedding`:
    `keras.layers.Embedding` copies a table whose rows are updated one by one in each
    step.) Where they are dense, on other backends, with `gradient_accumulation_steps`
    and with a regularizer, tables are known as matrices called `embeddings`, as in
    `keras.layers.Embedding`, and a row counts as touched if its gradient is not zero.
    `weight_decay` and `use_ema` go over whole tables, as in Keras.

    Args:
        learning_rate: float, or a `keras.optimizers.schedules.LearningRateSchedule`.
            Defaults to `0.001`.
        **kwargs: the other Args of `keras.optimizers.Adam`.

    Raises:
        ValueError: With `amsgrad`, `clipnorm`, `clipvalue` or `global_clipnorm`.

    Example:
    ```python
    model.compile(hccm_tf.optimizers.LazyAdam(1e-3), loss="binary_crossentropy")
    ```

    References:
    - [D. Kingma and J. Ba, Adam, ICLR 2015](https://arxiv.org/abs/1412.6980); lazy as
      in TensorFlow Addons' `LazyAdam`
    """

    def __init__(self, learning_rate=0.001, **kwargs):
        super().__init__(learning_rate, **kwargs)
        refuse(self, "amsgrad", "clipnorm", "clipvalue", "global_clipnorm")

    def build(self, var_list):
        if self.built:
            return
        super().build(var_list)
        self._are_tables = [is_table(variable) for variable in var_list]

    def update_step(self, gradient, variable, learning_rate):
        # As Keras' own optimizers do, from their non-public members.
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        if is_sparse(gradient):
            rows, gradient = sum_duplicates(gradient)
            m, v = take_rows(momentum, rows), take_rows(velocity, rows)
            m, v, change = self._step(gradient, m, v, learning_rate)
            self.assign(momentum, at_rows(m, rows))
            self.assign(velocity, at_rows(v, rows))
            self.assign_sub(variable, at_rows(change, rows))
        elif self._are_tables[index]:
            touched = ops.any(ops.not_equal(gradient, 0), axis=-1, keepdims=True)
            m, v, change = self._step(gradient, momentum, velocity, learning_rate)
            self.assign(momentum, ops.where(touched, m, momentum.value))
            self.assign(velocity, ops.where(touched, v, velocity.value))
            self.assign_sub(variable, ops.where(touched, change, 0))
        else:
            super().update_step(gradient, variable, learning_rate)

    def _step(self, gradient, m, v, learning_rate):
        """The new moments of some rows, and what to subtract from their weights."""
        dtype = gradient.dtype
        step = ops.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = ops.cast(self.beta_1, dtype), ops.cast(self.beta_2, dtype)
        scale = ops.sqrt(1 - ops.power(beta_2, step)) / (1 - ops.power(beta_1, step))
        rate = ops.cast(learning_rate, dtype) * scale
        m = m + (1 - self.beta_1) * (gradient - m)
        v = v + (1 - self.beta_2) * (ops.square(gradient) - v)
        return m, v, rate * m / (ops.sqrt(v) + self.epsilon)
