"""Layers of a candidate and a history behind Keras' `Embedding(mask_zero=True)`."""

import warnings

import keras
import numpy as np
import pytest

from hccm_tf.layers import (
    CosineSimilarity,
    DINAttention,
    MultiQueryAttention,
    SimilarityHistogram,
)

HISTORY = np.array([[1, 2, 0, 0], [3, 1, 2, 0]])


@pytest.mark.parametrize("candidates", [np.array([3, 0]), np.array([[3, 1], [2, 0]])])
@pytest.mark.parametrize(
    "layer", [DINAttention, CosineSimilarity, SimilarityHistogram, MultiQueryAttention]
)
def test_implicit_masks_are_those_that_are_given(layer, candidates):
    embedding = keras.layers.Embedding(5, 6, mask_zero=True)
    unmasked = keras.layers.Embedding(5, 6)
    unmasked.build()
    embedding.build()
    unmasked.set_weights(embedding.get_weights())
    layer = layer()

    def call(embed, **masks):
        inputs = {"query": embed(candidates), "keys": embed(HISTORY)}
        if isinstance(layer, MultiQueryAttention):
            inputs["id_query"] = embed(candidates)
        return layer(**inputs, **masks)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = call(embedding)
    masks = {"keys_mask": HISTORY > 0}
    if hasattr(layer, "hidden_units"):
        masks["query_mask"] = candidates > 0 if candidates.ndim == 2 else None
    real = candidates > 0 if candidates.ndim == 2 else np.ones(2, bool)
    expected = keras.ops.convert_to_numpy(call(unmasked, **masks))
    found_values = keras.ops.convert_to_numpy(found)
    np.testing.assert_allclose(found_values[real], expected[real], atol=1e-6)
    if candidates.ndim == 2:
        # A layer behind it is told which candidates are real.
        mean = keras.layers.GlobalAveragePooling1D()(found)
        expected = [row[of].mean(0) for row, of in zip(expected, real, strict=True)]
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(mean), expected, atol=1e-6
        )
