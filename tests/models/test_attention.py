import numpy as np
import tensorflow as tf

from hccm_tf.models.attention import DotProductAttention


def _softmax_attention(query, keys, mask):
    """Of one query and one history."""
    chosen = keys[mask]
    if not len(chosen):
        return 0 * query
    weight = np.exp(chosen @ query / np.sqrt(len(query)))
    return weight @ chosen / weight.sum()


def test_dot_product_attention_is_a_softmax():
    rng = np.random.default_rng(0)
    query = rng.normal(size=(3, 6)).astype(np.float32)
    keys = rng.normal(size=(3, 5, 6)).astype(np.float32)
    mask = rng.random((3, 5)) < 0.6
    mask[0], mask[1, 0] = False, True
    expected = [*map(_softmax_attention, query, keys, mask)]
    found = DotProductAttention()(*map(tf.constant, (query, keys, mask)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dot_product_attention_of_requests():
    rng = np.random.default_rng(1)
    query = rng.normal(size=(3, 4, 6)).astype(np.float32)
    keys = rng.normal(size=(3, 5, 6)).astype(np.float32)
    mask = rng.random((3, 5)) < 0.6
    mask[0], mask[1, 0] = False, True
    query_mask = np.arange(4) < np.array([[1], [4], [2]])
    garbage = np.where(query_mask[..., None], query, 100 * query)
    found = DotProductAttention()(*map(tf.constant, (garbage, keys, mask, query_mask)))
    assert np.isfinite(found).all()
    for row, place in np.argwhere(query_mask):
        expected = _softmax_attention(query[row, place], keys[row], mask[row])
        np.testing.assert_allclose(found[row, place], expected, atol=1e-5)
