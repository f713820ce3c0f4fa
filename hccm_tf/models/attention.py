"""The paper's own attention, and the weights of either one."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="hccm_tf")
class DotProductAttention(keras.layers.Layer):
    """`softmax(q·k / √D) k` over the non-masked keys, 0 if there is none (Eq. 14).

    Its call has the arguments and outputs of `hccm_tf.layers.DINAttention`, and needs
    `keys_mask`.
    """

    def build(self, query_shape, keys_shape):
        self.attention = keras.layers.Attention(dtype=self.dtype_policy)
        self.attention.build([query_shape, keys_shape])

    def call(
        self, query, keys, keys_mask, query_mask=None, return_attention_scores=False
    ):
        del query_mask  # Nothing here is a statistic of the batch.
        one_candidate = len(query.shape) == 2
        if one_candidate:
            query = query[:, None]
        outputs, weights = self.attention(
            [query * query.shape[-1] ** -0.5, keys],
            mask=[None, keys_mask],
            return_attention_scores=True,
        )
        some = ops.any(keys_mask, axis=1)[:, None, None]
        outputs, weights = (x * ops.cast(some, x.dtype) for x in (outputs, weights))
        if one_candidate:
            outputs, weights = outputs[:, 0], weights[:, 0]
        return (outputs, weights) if return_attention_scores else outputs

    def compute_output_shape(self, query_shape, keys_shape):
        return query_shape


class AttentionWeights(keras.layers.Layer):
    """The weights `[B, T]` that an attention layer gives.

    In a layer of its own, because a layer in two Keras graphs has as many outputs in
    the second as in the first.
    """

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def call(self, query, keys, keys_mask):
        return self.attention(
            query, keys, keys_mask=keys_mask, return_attention_scores=True
        )[1]

    def compute_output_shape(self, query_shape, keys_shape, keys_mask_shape):
        return keys_mask_shape
