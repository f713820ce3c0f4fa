"""A model of all parts takes a step on the backend at hand."""

import keras
import numpy as np

from hccm_tf.layers import (
    CosineSimilarity,
    Dice,
    DINAttention,
    Embedding,
    HybridCNN,
    IdDropout,
    MultiQueryAttention,
    SimilarityHistogram,
    SpatialAttention,
)
from hccm_tf.optimizers import LazyAdam
from tests.layers.run_layer_test import randomize_weights, to_numpy

BATCH, LENGTH, ITEMS, CATEGORIES, RATE = 8, 5, 20, 6, 0.01
MAP = (4, 4, 3)


def make_model():
    item = keras.Input((), dtype="int32", name="item")
    history = keras.Input((LENGTH,), dtype="int32", name="history")
    category = keras.Input((LENGTH + 1,), dtype="int32", name="category")
    feature_map = keras.Input((LENGTH + 1, *MAP), name="feature_map")

    clicked = history != 0
    there = keras.ops.pad(clicked, [[0, 0], [1, 0]], constant_values=True)
    embedding = Embedding(ITEMS, 4, name="items")
    query, keys = embedding(item), embedding(IdDropout(0.1, seed=0)(history))
    interest = DINAttention((12, 6))(query, keys, keys_mask=clicked)
    images = HybridCNN(6, CATEGORIES, filters=(5, 7), reduction_ratio=1)(
        SpatialAttention(3)(feature_map), category=category, feature_map_mask=there
    )
    image, clicks = images[:, 0], images[:, 1:]
    visual = [
        MultiQueryAttention((12, 6))(image, query, clicks, keys_mask=clicked),
        CosineSimilarity()(image, clicks, keys_mask=clicked),
        SimilarityHistogram()(image, clicks, keys_mask=clicked),
    ]
    x = keras.ops.concatenate([query, interest, image, *visual], axis=-1)
    x = Dice()(keras.layers.Dense(8)(x))
    inputs = [item, history, category, feature_map]
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
    model.compile(
        LazyAdam(RATE, epsilon=1e-12),
        "binary_crossentropy",
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


def test_a_step():
    rng = np.random.default_rng(0)
    # The last item and category are not in the batch.
    items = rng.integers(0, ITEMS - 1, (BATCH, LENGTH + 1)).astype("int32")
    inputs = {
        "item": items[:, 0],
        "history": items[:, 1:],
        "category": rng.integers(0, CATEGORIES - 1, items.shape).astype("int32"),
        "feature_map": rng.standard_normal((*items.shape, *MAP)).astype("float32"),
    }
    clicks = np.arange(BATCH)[:, None] % 2
    model = make_model()
    randomize_weights(model)
    weights = model.trainable_weights
    before = [to_numpy(weight).copy() for weight in weights]
    fitted = model.fit(inputs, clicks, batch_size=BATCH, verbose=0)
    assert np.isfinite(fitted.history["loss"]).all()
    for weight, old in zip(weights, before, strict=True):
        moved = np.abs(to_numpy(weight) - old)
        # Adam's first step, without epsilon, is the learning rate.
        np.testing.assert_allclose(moved.max(), RATE, rtol=0.01, err_msg=weight.path)
        if weight.name == "embeddings":
            np.testing.assert_array_equal(moved[-1], 0.0)
