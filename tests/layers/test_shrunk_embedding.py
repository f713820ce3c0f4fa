import keras
import numpy as np
import pytest

from hccm_tf.layers import ShrunkEmbedding
from tests.layers.run_layer_test import run_layer_test, to_numpy

RNG = np.random.default_rng(0)
COUNTS = np.array([0, 0, 1, 5, 5000, 0, 40], "float32")
IDS = RNG.integers(0, len(COUNTS), (6, 9)).astype("int32")


def with_counts(shrinkage, **arguments):
    layer = ShrunkEmbedding(len(COUNTS), 4, shrinkage, **arguments)
    layer.build((None,))
    layer.counts.assign(COUNTS)
    return layer


def test_layer():
    run_layer_test(
        ShrunkEmbedding,
        {"input_dim": len(COUNTS), "output_dim": 4, "shrinkage": 2.0},
        {"inputs": IDS},
        expected_num_trainable_weights=1,
        expected_num_non_trainable_weights=1,
        num_dynamic_dims=2,
    )


@pytest.mark.parametrize("shrinkage", [0.5, 20.0])
def test_equals_numpy(shrinkage):
    layer = with_counts(shrinkage, oov_index=3)
    outputs = to_numpy(layer(IDS))
    table = to_numpy(layer.embedding.embeddings)
    for place in np.ndindex(*IDS.shape):
        n = COUNTS[IDS[place]]
        expected = (n * table[IDS[place]] + shrinkage * table[3]) / (n + shrinkage)
        np.testing.assert_allclose(outputs[place], expected, rtol=1e-5, atol=1e-7)


def test_without_shrinkage_it_is_an_embedding():
    layer = with_counts(0.0)
    outputs, table = to_numpy(layer(IDS)), to_numpy(layer.embedding.embeddings)
    seen = COUNTS[IDS] > 0
    np.testing.assert_allclose(outputs[seen], table[IDS][seen], rtol=1e-6)
    assert (outputs[~seen] == table[1]).all()


def test_a_rare_id_moves_less():
    """A step of a frequent id moves its own row, of a rare one that of all unknown."""
    ids = keras.Input((1,), dtype="int32")
    layer = with_counts(10.0)
    model = keras.Model(ids, layer(ids))
    model.compile(keras.optimizers.SGD(1.0), loss="mse", jit_compile=False)
    before = to_numpy(layer.embedding.embeddings).copy()
    model.fit(np.array([[2], [4]], "int32"), np.ones((2, 1, 4)), verbose=0)
    moved = np.abs(to_numpy(layer.embedding.embeddings) - before).mean(axis=1)
    assert moved[4] > 5 * moved[2] > 0
    assert moved[1] > moved[2]
    assert (moved[[0, 3, 5, 6]] == 0).all()


def test_counts_are_saved(tmp_path):
    ids = keras.Input((9,), dtype="int32")
    layer = with_counts(2.0)
    model = keras.Model(ids, layer(ids))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded(IDS)), to_numpy(model(IDS)))
    np.testing.assert_array_equal(to_numpy(loaded.layers[-1].counts), COUNTS)


def test_errors():
    with pytest.raises(ValueError, match="Received: shrinkage=-1"):
        ShrunkEmbedding(7, 4, -1)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs shards")
def test_shards_are_one_table(tmp_path):
    rows = 20_000
    layers = [ShrunkEmbedding(rows, 2, 3.0, shards=shards) for shards in (1, 2)]
    ids = np.array([[0, 1, 7, 9_999, 10_000, rows - 1]])
    for layer in layers:
        layer.build((None,))
        layer.counts.assign(np.arange(rows))
    whole, sharded = (keras.Sequential([layer]) for layer in layers)
    for model in (whole, sharded):
        model(ids)
    assert len(sharded.trainable_weights) == 2
    whole.save_weights(tmp_path / "whole.weights.h5")
    sharded.load_weights(tmp_path / "whole.weights.h5")
    np.testing.assert_array_equal(to_numpy(sharded(ids)), to_numpy(whole(ids)))
