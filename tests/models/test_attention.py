import numpy as np
import tensorflow as tf

from hccm_tf.models.attention import DotProductAttention


def test_dot_product_attention_is_a_softmax():
    rng = np.random.default_rng(0)
    query = rng.normal(size=(3, 6)).astype(np.float32)
    keys = rng.normal(size=(3, 5, 6)).astype(np.float32)
    mask = rng.random((3, 5)) < 0.6
    mask[0], mask[1, 0] = False, True
    expected = np.zeros((3, 6))
    for row in range(3):
        chosen = keys[row][mask[row]]
        if len(chosen):
            weight = np.exp(chosen @ query[row] / np.sqrt(6))
            expected[row] = weight @ chosen / weight.sum()
    found = DotProductAttention()(*map(tf.constant, (query, keys, mask)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
