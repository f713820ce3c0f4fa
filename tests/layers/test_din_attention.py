import keras
import numpy as np
import pytest
from keras import ops

from hccm_tf.layers import DINAttention
from tests.layers.numpy_reference import dense, moments, relu, sigmoid
from tests.layers.run_layer_test import randomize_weights, run_layer_test, to_numpy

RNG = np.random.default_rng(0)
QUERY = RNG.standard_normal((4, 3, 5)).astype("float32")
KEYS = RNG.standard_normal((4, 6, 5)).astype("float32")
MASK = RNG.random((4, 6)) < 0.6
MASK[1] = False
MASK[2] = True
# Of requests of different sizes.
QUERY_MASK = np.arange(3) < np.array([[3], [2], [1], [2]])
OPTIONS = [
    pytest.param(activation, normalize, id=f"{activation}-{normalize}")
    for activation in ("dice", "relu")
    for normalize in (None, "softmax")
]
# Where the MLP has more units, rows are narrow for it, and otherwise computed.
FORMS = pytest.mark.parametrize(
    "hidden_units, query",
    [((4, 3), QUERY), ((15, 3), QUERY[:, 0]), ((15, 3), QUERY)],
    ids=["wide", "narrow", "narrow-several"],
)


def random_layer(hidden_units=(4, 3), **kwargs):
    layer = DINAttention(hidden_units=hidden_units, **kwargs)
    layer(QUERY, KEYS)
    randomize_weights(layer)
    return layer


def reference(layer, query, keys, mask=None, training=False, query_mask=None):
    """Outputs, and the batch's mean and variance at each Dice."""
    weights = {
        w.path.split(f"{layer.name}/")[-1]: to_numpy(w).astype("float64")
        for w in layer.weights
    }
    shape = (*query.shape[:2], *keys.shape[1:])
    q = np.broadcast_to(query[:, :, None], shape).astype("float64")
    k = np.broadcast_to(keys[:, None], shape).astype("float64")
    mask = np.ones(keys.shape[:2], bool) if mask is None else mask
    mask = np.broadcast_to(mask[:, None], shape[:3])
    counts = mask if query_mask is None else mask & query_mask[..., None]
    x = np.concatenate([q, k, q - k, q * k], axis=-1)
    x = dense(x, (weights["kernel"], weights["bias"]))
    statistics = []
    for i in (1, 2):
        if layer.activation == "dice":
            alpha = weights[f"dice{i}/alpha"]
            mean = weights[f"dice{i}/moving_mean"]
            variance = weights[f"dice{i}/moving_variance"]
            if training:
                mean, variance = moments(x, counts)
            statistics += [mean, variance]
            p = sigmoid((x - mean) / np.sqrt(variance + 1e-8))
            x = p * x + (1 - p) * alpha * x
        else:
            x = relu(x)
        x = dense(x, (weights[f"dense{i}/kernel"], weights.get(f"dense{i}/bias", 0.0)))
    scores = x[..., 0]
    if layer.normalize == "softmax":
        scores = np.exp(scores)
        total = np.sum(scores * mask, axis=-1, keepdims=True)
        scores = scores / np.where(total == 0, 1, total)
    return np.einsum("bnt,bntd->bnd", scores * mask, k), statistics


@pytest.mark.parametrize("activation, normalize", OPTIONS)
@pytest.mark.parametrize(
    "hidden_units, query, mask, query_mask",
    [
        ((4, 3), QUERY, None, None),
        ((4, 3), QUERY[:, 0], MASK, None),
        ((15, 3), QUERY[:, 0], MASK, None),
        ((4, 3), QUERY, MASK, QUERY_MASK),
        ((15, 3), QUERY, MASK, QUERY_MASK),
    ],
)
def test_layer(hidden_units, query, mask, query_mask, activation, normalize):
    dice = activation == "dice"
    inputs = {"query": query, "keys": KEYS}
    if mask is not None:
        inputs["keys_mask"] = mask
    if query_mask is not None:
        inputs["query_mask"] = query_mask
    run_layer_test(
        DINAttention,
        {
            "hidden_units": hidden_units,
            "activation": activation,
            "normalize": normalize,
        },
        inputs,
        expected_num_trainable_weights=6 + 2 * dice - (normalize == "softmax"),
        expected_num_non_trainable_weights=4 if dice else 0,
        num_dynamic_dims={
            "query": query.ndim - 1,
            "keys": 2,
            "keys_mask": 2,
            "query_mask": 2,
        },
        mixed_precision_tolerance=0.05,
    )


@pytest.mark.parametrize("activation, normalize", OPTIONS)
@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "mask"])
def test_inference_equals_numpy(activation, normalize, mask):
    layer = random_layer(activation=activation, normalize=normalize)
    expected, _ = reference(layer, QUERY, KEYS, mask)
    outputs = to_numpy(layer(query=QUERY, keys=KEYS, keys_mask=mask))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@FORMS
@pytest.mark.parametrize("normalize", [None, "softmax"])
@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "mask"])
def test_training_equals_numpy(hidden_units, query, normalize, mask):
    layer = random_layer(hidden_units, normalize=normalize)
    old = [to_numpy(w) for w in layer.non_trainable_weights]
    queries = query.reshape(len(QUERY), -1, QUERY.shape[-1])
    expected, statistics = reference(layer, queries, KEYS, mask, training=True)
    outputs = to_numpy(layer(query, KEYS, keys_mask=mask, training=True))
    expected = expected.reshape(query.shape)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    new = [to_numpy(w) for w in layer.non_trainable_weights]
    for before, after, batch in zip(old, new, statistics, strict=True):
        np.testing.assert_allclose(
            after, 0.9 * before + 0.1 * batch, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("activation", ["dice", "relu"])
@pytest.mark.parametrize("training", [False, True])
def test_histories_that_are_all_empty(activation, training):
    layer = random_layer((15, 3), activation=activation)
    nowhere = np.zeros_like(MASK)
    outputs = layer(QUERY[:, 0], KEYS, keys_mask=nowhere, training=training)
    np.testing.assert_array_equal(to_numpy(outputs), np.zeros_like(QUERY[:, 0]))


@FORMS
def test_a_mask_for_all_histories(hidden_units, query):
    layer = random_layer(hidden_units)
    alike = layer(query, KEYS, keys_mask=np.repeat(MASK[:1], len(KEYS), axis=0))
    outputs = to_numpy(layer(query, KEYS, keys_mask=MASK[:1]))
    np.testing.assert_array_equal(outputs, to_numpy(alike))


@FORMS
@pytest.mark.parametrize("activation, normalize", OPTIONS)
def test_weights_are_those_of_the_output(hidden_units, query, activation, normalize):
    """As many clicks as dimensions: only one set of weights gives the output."""
    layer = random_layer(hidden_units, activation=activation, normalize=normalize)
    keys, mask = KEYS[:, :5], MASK[:, :5]
    several = query.reshape(4, -1, 5)
    expected, _ = reference(layer, several, keys, mask)
    outputs, weights = layer(query, keys, keys_mask=mask, return_attention_scores=True)
    weights = to_numpy(weights)
    assert weights.shape == (*query.shape[:-1], 5)
    weights = weights.reshape(4, -1, 5)
    assert (weights[~np.broadcast_to(mask[:, None], weights.shape)] == 0).all()
    np.testing.assert_allclose(weights @ keys, expected, rtol=1e-4, atol=1e-5)
    outputs = to_numpy(outputs).reshape(expected.shape)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    symbolic = [keras.KerasTensor((None, *x.shape[1:])) for x in (query, keys)]
    specs = layer(*symbolic, return_attention_scores=True)
    assert [spec.shape[1:] for spec in specs] == [
        query.shape[1:],
        (*query.shape[1:-1], 5),
    ]


@pytest.mark.parametrize("hidden_units", [(4, 3), (15, 3)], ids=["wide", "narrow"])
@pytest.mark.parametrize("activation, normalize", OPTIONS)
def test_several_candidates_equal_several_calls(hidden_units, activation, normalize):
    layer = random_layer(hidden_units, activation=activation, normalize=normalize)
    together = to_numpy(layer(QUERY, KEYS, keys_mask=MASK))
    for n in range(QUERY.shape[1]):
        alone = to_numpy(layer(QUERY[:, n], KEYS, keys_mask=MASK))
        np.testing.assert_allclose(together[:, n], alone, rtol=1e-5, atol=1e-6)


@FORMS
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("activation, normalize", OPTIONS)
def test_masked_positions_leave_no_trace(
    hidden_units, query, activation, normalize, training
):
    garbage = KEYS.copy()
    garbage[~MASK] = 100.0 * RNG.standard_normal((np.sum(~MASK), 5))
    results = []
    for keys in (KEYS, garbage):
        layer = random_layer(hidden_units, activation=activation, normalize=normalize)
        outputs = layer(query, keys, keys_mask=MASK, training=training)
        results.append([to_numpy(outputs), *layer.get_weights()])
    for plain, dirty in zip(*results, strict=True):
        np.testing.assert_allclose(plain, dirty, rtol=1e-6, atol=1e-6)


@FORMS
@pytest.mark.parametrize("activation, normalize", OPTIONS)
def test_empty_history_gives_zeros(hidden_units, query, activation, normalize):
    layer = random_layer(hidden_units, activation=activation, normalize=normalize)
    outputs = to_numpy(layer(query, KEYS, keys_mask=MASK))
    np.testing.assert_array_equal(outputs[1], 0.0)
    assert (outputs[[0, 2, 3]] != 0).all()


def naive(layer, query, keys, mask):
    """The unit as usually written, with the layer's own weights."""
    keys_tiled = keys[:, None] + ops.zeros_like(query)[:, :, None]
    query_tiled = query[:, :, None] + ops.zeros_like(keys)[:, None]
    x = ops.concatenate(
        [query_tiled, keys_tiled, query_tiled - keys_tiled, query_tiled * keys_tiled],
        axis=-1,
    )
    x = ops.matmul(x, ops.convert_to_tensor(layer.kernel)) + layer.bias
    full_mask = ops.broadcast_to(mask[:, None], ops.shape(x)[:-1])
    for activation, unit in zip(layer.activations, layer.denses, strict=True):
        if layer.activation == "dice":
            x = activation(x, mask=full_mask, training=True)
        else:
            x = activation(x)
        x = unit(x)
    scores = x[..., 0]
    if layer.normalize == "softmax":
        scores = ops.softmax(ops.where(full_mask, scores, -1e30), axis=-1)
    weights = ops.where(full_mask, scores, ops.zeros_like(scores))
    return ops.sum(weights[..., None] * keys_tiled, axis=2)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="takes gradients with TensorFlow"
)
@FORMS
@pytest.mark.parametrize("activation, normalize", OPTIONS)
def test_gradients_equal_the_naive_form(hidden_units, query, activation, normalize):
    import tensorflow as tf

    # float64 tells a missing term from rounding errors.
    layer = random_layer(
        hidden_units, activation=activation, normalize=normalize, dtype="float64"
    )
    query = tf.constant(query, "float64")
    keys = tf.constant(KEYS, "float64")
    mask = tf.constant(MASK)
    target = tf.constant(RNG.standard_normal(query.shape))
    queries = (len(QUERY), -1, QUERY.shape[-1])
    results = []
    for form in (
        lambda: layer(query, keys, keys_mask=mask, training=True),
        lambda: tf.reshape(
            naive(layer, tf.reshape(query, queries), keys, mask), query.shape
        ),
    ):
        with tf.GradientTape() as tape:
            tape.watch([query, keys])
            outputs = form()
            loss = tf.reduce_sum(tf.square(outputs - target))
        sources = [query, keys, *[w.value for w in layer.trainable_weights]]
        gradients = map(tf.convert_to_tensor, tape.gradient(loss, sources))
        results.append([outputs, *gradients])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    keys_gradient = results[0][2].numpy()
    assert (keys_gradient[~MASK] == 0).all()
    assert (keys_gradient[MASK] != 0).all()
    assert all(np.isfinite(g).all() and (g.numpy() != 0).any() for g in results[0])


def test_kernel_starts_like_a_dense_layer():
    keras.utils.set_random_seed(0)
    layer = DINAttention()
    layer.build((None, 64), (None, None, 64))
    limit = np.sqrt(6 / (4 * 64 + 80))
    kernel = to_numpy(layer.kernel)
    assert kernel.shape == (256, 80)
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert not to_numpy(layer.bias).any()


def test_defaults_and_hidden_units():
    layer = DINAttention()
    layer.build((None, 5), (None, None, 5))
    assert [w.shape for w in layer.trainable_weights if "kernel" in w.path] == [
        (20, 80),
        (80, 40),
        (40, 1),
    ]
    assert (layer.activation, layer.normalize) == ("dice", None)


def test_invalid_arguments():
    with pytest.raises(ValueError, match=r"Received: hidden_units=\(\)"):
        DINAttention(hidden_units=())
    with pytest.raises(ValueError, match="Received: normalize=sum"):
        DINAttention(normalize="sum")
    with pytest.raises(ValueError, match="static last dimension. Received: "):
        DINAttention().build((None, 4), (None, None, 5))


def test_receives_the_implicit_mask_of_keys():
    ids = RNG.integers(1, 9, MASK.shape) * MASK
    embedding = keras.layers.Embedding(9, QUERY.shape[-1], mask_zero=True)
    layer = DINAttention(hidden_units=(4, 3))
    implicit = layer(QUERY, embedding(ids))
    explicit = layer(QUERY, to_numpy(embedding(ids)), keys_mask=MASK)
    np.testing.assert_array_equal(to_numpy(implicit), to_numpy(explicit))
    assert (to_numpy(implicit)[1] == 0).all()
