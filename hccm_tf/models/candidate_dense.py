"""The final MLP's first layer, whose product with the user's features is shared."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="hccm_tf")
class CandidateDense(keras.layers.Dense):
    """`keras.layers.Dense` on the concatenation of a user's and a candidate's features.

    With N candidates of one user, the concatenation is not built and the kernel's part
    for the user is applied once:

    ```
    output = activation(candidate W[du:] + (user W[:du] + b))
    ```

    Call arguments:
        candidate: float tensor of shape `[B, dc]` or `[B, N, dc]`.
        user: optional float tensor of shape `[B, du]`.

    Output:
        Tensor of shape `[B, units]` or `[B, N, units]`.
    """

    def build(self, candidate_shape, user_shape=None):
        width = candidate_shape[-1] + (user_shape[-1] if user_shape else 0)
        super().build((None, width))
        # It says the width of the concatenation.
        self.input_spec = None

    def call(self, candidate, user=None):
        if user is None:
            return super().call(candidate)
        if len(candidate.shape) == 2:
            return super().call(ops.concatenate([user, candidate], axis=-1))
        width = user.shape[-1]
        shared = ops.matmul(user, self.kernel[:width]) + self.bias
        own = ops.matmul(candidate, self.kernel[width:])
        return self.activation(own + shared[:, None])

    def compute_output_shape(self, candidate_shape, user_shape=None):
        return (*candidate_shape[:-1], self.units)
