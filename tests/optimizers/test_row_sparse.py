"""LazyAdam and RowwiseAdagrad against NumPy, with duplicate and absent ids."""

import textwrap

import keras
import numpy as np
import pytest
from keras import ops

from hccm_tf.layers import Embedding
from hccm_tf.optimizers import LazyAdam, RowwiseAdagrad
from tests import processes

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

ROWS, DIM, STEPS, RATE = 12, 3, 6, 0.05


def lazy_adam(table, batches, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Trains a table on `(ids, gradients)` row by row, in float64."""
    w = table.astype(np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (ids, gradients) in enumerate(batches, start=1):
        for row in set(ids.tolist()):
            g = gradients[ids == row].sum(axis=0)
            m[row] = beta_1 * m[row] + (1 - beta_1) * g
            v[row] = beta_2 * v[row] + (1 - beta_2) * g**2
            mean, square = m[row] / (1 - beta_1**t), v[row] / (1 - beta_2**t)
            # Adam's epsilon in the form of the paper's section 2.
            small = epsilon / np.sqrt(1 - beta_2**t)
            w[row] -= RATE * mean / (np.sqrt(square) + small)
    return w


def rowwise_adagrad(table, batches, epsilon=1e-7):
    w = table.astype(np.float64)
    total = np.full(len(w), 0.1)
    for ids, gradients in batches:
        for row in set(ids.tolist()):
            g = gradients[ids == row].sum(axis=0)
            total[row] += np.mean(g**2)
            w[row] -= RATE * g / np.sqrt(total[row] + epsilon)
    return w


OPTIMIZERS = pytest.mark.parametrize(
    "make, reference", [(LazyAdam, lazy_adam), (RowwiseAdagrad, rowwise_adagrad)]
)
ON_TENSORFLOW = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="row-sparse gradients"
)


@pytest.fixture
def batches():
    """Ids, with duplicates and some that are never there, and their gradients."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, ROWS - 2, 9) for _ in range(STEPS)]
    return [(i, rng.normal(size=(9, DIM)).astype(np.float32)) for i in ids]


def make_table(layer=Embedding):
    table = layer(ROWS, DIM, embeddings_initializer="glorot_uniform")
    table.build()
    return table


@ON_TENSORFLOW
@OPTIMIZERS
@pytest.mark.parametrize("layer", [Embedding, keras.layers.Embedding])
def test_sparse_gradients(make, reference, layer, batches):
    table, optimizer = make_table(layer), make(RATE)
    before = ops.convert_to_numpy(table.embeddings)

    @tf.function
    def step(ids, gradients):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(table(ids) * gradients)
        gradient = tape.gradient(loss, table.trainable_weights)
        assert isinstance(gradient[0], tf.IndexedSlices)
        optimizer.apply(gradient, table.trainable_weights)

    for ids, gradients in batches:
        step(tf.constant(ids), tf.constant(gradients))
    after = ops.convert_to_numpy(table.embeddings)
    np.testing.assert_allclose(after, reference(before, batches), atol=2e-6)
    np.testing.assert_array_equal(after[-2:], before[-2:])


@OPTIMIZERS
def test_dense_gradients_of_a_table(make, reference, batches):
    table, optimizer = make_table(), make(RATE)
    before = ops.convert_to_numpy(table.embeddings)
    for ids, gradients in batches:
        dense = np.zeros((ROWS, DIM), np.float32)
        np.add.at(dense, ids, gradients)
        optimizer.apply([ops.convert_to_tensor(dense)], table.trainable_weights)
    after = ops.convert_to_numpy(table.embeddings)
    np.testing.assert_allclose(after, reference(before, batches), atol=2e-6)


@pytest.mark.parametrize(
    "make, plain",
    [
        (LazyAdam, keras.optimizers.Adam),
        (RowwiseAdagrad, keras.optimizers.Adagrad),
    ],
)
def test_other_weights_get_the_rules_of_keras(make, plain):
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(STEPS, 4, 5)).astype(np.float32)
    # A weight decay, to see that what Keras does around the rule is kept.
    found = []
    for optimizer in (make(RATE, weight_decay=0.01), plain(RATE, weight_decay=0.01)):
        weight = keras.Variable(np.ones((4, 5), np.float32), name="kernel")
        for gradient in gradients:
            optimizer.apply([ops.convert_to_tensor(gradient)], [weight])
        found.append(ops.convert_to_numpy(weight))
    # On PyTorch, Keras' Adam takes all weights at once and rounds differently.
    np.testing.assert_allclose(*found, rtol=1e-6)


@ON_TENSORFLOW
@OPTIMIZERS
def test_any_weight_may_have_a_sparse_gradient(make, reference, batches):
    """Adagrad's rule is then Keras', with duplicates summed before they are squared."""
    weight = keras.Variable(np.ones((ROWS, DIM), np.float32), name="kernel")
    dense_weight = keras.Variable(np.ones((ROWS, DIM), np.float32), name="kernel")
    optimizer, plain = make(RATE), keras.optimizers.Adagrad(RATE)
    for ids, gradients in batches:
        slices = tf.IndexedSlices(
            tf.constant(gradients), tf.constant(ids), tf.constant([ROWS, DIM])
        )
        optimizer.apply([slices], [weight])
        dense = tf.math.unsorted_segment_sum(gradients, ids, ROWS)
        plain.apply([dense], [dense_weight])
    expected = ops.convert_to_numpy(dense_weight)
    if make is LazyAdam:
        expected = reference(np.ones((ROWS, DIM)), batches)
    np.testing.assert_allclose(ops.convert_to_numpy(weight), expected, atol=2e-6)


def make_model(optimizer):
    keras.utils.set_random_seed(0)
    ids = keras.Input((4,), dtype="int32")
    x = keras.layers.Flatten()(Embedding(ROWS, DIM)(ids))
    model = keras.Model(ids, keras.layers.Dense(1, activation="sigmoid")(x))
    model.compile(optimizer, "binary_crossentropy", jit_compile=False)
    return model


def clicks():
    rng = np.random.default_rng(1)
    return rng.integers(0, ROWS, (64, 4)), rng.integers(0, 2, (64, 1))


@OPTIMIZERS
def test_saved_and_resumed(make, reference, tmp_path):
    x, y = clicks()
    fit = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0}
    whole = make_model(make(RATE))
    whole.fit(x, y, **fit)
    whole.fit(x, y, **fit)
    first = make_model(make(RATE))
    first.fit(x, y, **fit)
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    assert type(second.optimizer) is make
    second.fit(x, y, **fit)
    for one, other in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_state_of_rowwise_adagrad_is_one_number_a_row():
    model = make_model(RowwiseAdagrad(RATE))
    model.fit(*clicks(), verbose=0)
    shapes = [tuple(v.shape) for v in model.optimizer.variables]
    assert (ROWS, 1) in shapes
    assert (ROWS, DIM) not in shapes


@ON_TENSORFLOW
@OPTIMIZERS
def test_mirrored_replicas_are_one_device(make, reference):
    """Two replicas' rows overlap, so their gradients must be summed before the rule."""
    script = f"""
        import numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        from hccm_tf.optimizers import {make.__name__}
        from tests.optimizers.test_row_sparse import RATE, clicks, make_model
        x, y = clicks()
        found = []
        for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
            with tf.distribute.MirroredStrategy(devices).scope():
                model = make_model({make.__name__}(RATE))
            model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
            found.append(model.get_weights())
        for one, two in zip(*found, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)
    """
    processes.run(["-c", textwrap.dedent(script)], check=True)


@pytest.mark.parametrize(
    "make, option",
    [
        (LazyAdam, {"amsgrad": True}),
        (LazyAdam, {"clipnorm": 1.0}),
        (LazyAdam, {"global_clipnorm": 1.0}),
        (RowwiseAdagrad, {"clipvalue": 1.0}),
    ],
)
def test_options_that_do_not_go_with_rows(make, option):
    with pytest.raises(ValueError, match=f"`{next(iter(option))}` is not supported"):
        make(RATE, **option)
