import keras
import numpy as np
import pytest
from keras import ops

from hccm_tf.layers import Embedding
from hccm_tf.optimizers import LazyAdam

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


ROWS = 30_001
ONLY_TENSORFLOW = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="shards are of TensorFlow"
)


def _whole_and_sharded():
    whole, sharded = Embedding(ROWS, 4), Embedding(ROWS, 4, shards=3)
    whole.build()
    sharded.build()
    store = {}
    whole.save_own_variables(store)
    sharded.load_own_variables(store)
    return whole, sharded


@ONLY_TENSORFLOW
def test_under_a_strategy_each_row_is_gathered_once():
    import tensorflow as tf

    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        layer = Embedding(7, 5)
        layer.build()
    weights = np.random.default_rng(0).normal(size=(*IDS.shape, 5)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.int32)])
    def step(ids):
        with tf.GradientTape() as tape:
            rows = layer(ids)
            loss = tf.reduce_sum(rows * weights)
        return rows, tape.gradient(loss, layer.embeddings.value)

    rows, gradient = strategy.run(step, (IDS,))
    np.testing.assert_array_equal(rows, layer.embeddings.numpy()[IDS])
    assert sorted(gradient.indices.numpy()) == np.unique(IDS).tolist()
    expected = np.zeros((7, 5), np.float32)
    np.add.at(expected, IDS, weights)
    np.testing.assert_allclose(tf.convert_to_tensor(gradient), expected, rtol=1e-6)


@ONLY_TENSORFLOW
def test_rows_are_dealt_out_over_shards():
    layer = Embedding(ROWS, 4, "normal", shards=3)
    layer.build()
    rows = np.concatenate(layer.weights)
    assert len(np.unique(rows, axis=0)) == ROWS
    whole, sharded = _whole_and_sharded()
    table = np.array(whole.embeddings)
    parts = [np.array(weight) for weight in sharded.weights]
    assert [len(part) for part in parts] == [10_001, 10_000, 10_000]
    np.testing.assert_array_equal(np.concatenate(parts), table)
    ids = np.random.default_rng(0).integers(ROWS, size=(50, 7))
    np.testing.assert_array_equal(sharded(ids), table[ids])
    store = {}
    sharded.save_own_variables(store)
    np.testing.assert_array_equal(store["0"], table)
    assert Embedding.from_config(sharded.get_config()).shards == 3


def test_small_tables_stay_whole():
    layer = Embedding(19_999, 4, shards=2)
    layer.build()
    assert len(layer.weights) == 1


@ONLY_TENSORFLOW
def test_training_does_not_depend_on_shards():
    rng = np.random.default_rng(0)
    ids, labels = rng.integers(ROWS, size=(4, 64)), rng.normal(size=(4, 64, 1))
    tables = []
    for layer in _whole_and_sharded():
        head = keras.layers.Dense(1, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((), dtype="int32"), layer, head])
        model.compile(LazyAdam(0.01), "mse", jit_compile=False)
        for step in range(4):
            model.train_on_batch(ids[step], labels[step])
        store = {}
        layer.save_own_variables(store)
        tables.append(np.array(store["0"]))
    np.testing.assert_allclose(*tables, atol=1e-6)
