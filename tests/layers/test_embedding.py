import keras
import numpy as np
import pytest
from keras import ops

from hccm_tf.layers import Embedding

IDS = np.array([[4, 1, 0], [0, 6, 4]], np.int32)


def test_saved_in_a_model(tmp_path):
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, Embedding(7, 5)(ids))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[-1]) is Embedding
    np.testing.assert_array_equal(model.predict(IDS), loaded.predict(IDS))


def test_mixed_precision():
    layer = Embedding(7, 5, dtype="mixed_float16")
    outputs = layer(IDS)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    assert layer.embeddings.dtype == "float32"


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_rows_of_its_table(dtype):
    layer = Embedding(7, 5)
    layer.build()
    table = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    layer.set_weights([table])
    ids = ops.convert_to_tensor(IDS.astype(dtype))
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(ids)), table[IDS])


def test_low_rank_adapters_as_in_keras():
    layer = Embedding(7, 5)
    layer.build()
    layer.enable_lora(2)
    layer.lora_embeddings_b.assign(np.ones((2, 5), np.float32))
    plain = keras.layers.Embedding(7, 5)
    plain.build()
    plain.set_weights([layer.embeddings])
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(IDS)), ops.convert_to_numpy(plain(IDS)), rtol=1e-6
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graph operations")
def test_the_table_is_not_read_as_a_whole():
    import tensorflow as tf

    layer = Embedding(7, 5)
    layer.build()
    graph = tf.function(layer.call).get_concrete_function(tf.constant(IDS)).graph
    operations = {operation.type for operation in graph.get_operations()}
    assert "ResourceGather" in operations and "ReadVariableOp" not in operations
