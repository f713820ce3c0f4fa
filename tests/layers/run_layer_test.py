"""Checks that every layer has to pass."""

import inspect
import json
import os
import tempfile

import keras
import numpy as np
from keras import ops


def run_layer_test(
    layer_class,
    init_kwargs,
    inputs,
    expected_num_trainable_weights,
    expected_num_non_trainable_weights=0,
    expected_num_variables=None,
    num_dynamic_dims=1,
    mixed_precision_tolerance=0.03,
):
    """Runs the checks that do not depend on what a layer computes.

    Args:
        layer_class: the layer's class.
        init_kwargs: dict of its constructor arguments.
        inputs: dict of NumPy arrays, the call arguments by name, masks included.
        expected_num_trainable_weights: int.
        expected_num_non_trainable_weights: int.
        expected_num_variables: int, all variables, those of random seeds included.
            `None` (default) means the sum of the two numbers before.
        num_dynamic_dims: int or dict from input name to int. So many leading
            dimensions of an input are unknown to symbolic calls. Defaults to 1.
        mixed_precision_tolerance: float, largest deviation from float32, relative to
            the largest output.
    """
    if not isinstance(num_dynamic_dims, dict):
        num_dynamic_dims = dict.fromkeys(inputs, num_dynamic_dims)
    dynamic_shapes = {
        name: (None,) * num_dynamic_dims[name] + x.shape[num_dynamic_dims[name] :]
        for name, x in inputs.items()
    }
    num_weights = expected_num_trainable_weights + expected_num_non_trainable_weights
    _check_config(layer_class, init_kwargs)

    layer = layer_class(**init_kwargs)
    layer.build(**_shape_arguments(dynamic_shapes))
    assert len(layer.trainable_weights) == expected_num_trainable_weights
    assert len(layer.non_trainable_weights) == expected_num_non_trainable_weights
    assert len(layer.variables) == (expected_num_variables or num_weights)
    _check_sublayers_are_built(layer)
    outputs = layer(**inputs)
    assert len(layer.weights) == num_weights, "the call made new weights"

    randomize_weights(layer)
    outputs = layer(**inputs)
    _check_symbolic(layer_class(**init_kwargs), inputs, dynamic_shapes, outputs)
    model = _functional_model(layer, inputs, dynamic_shapes)
    _check_saving(model, inputs, outputs)
    for policy in ("mixed_float16", "mixed_bfloat16"):
        _check_mixed_precision(
            layer_class(**init_kwargs, dtype=policy),
            layer,
            inputs,
            outputs,
            mixed_precision_tolerance,
        )
    if expected_num_trainable_weights:
        _check_training(model, inputs, outputs)


def randomize_weights(layer, seed=0):
    """Gives each float weight, biases and moving averages too, random values."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        if weight.path.endswith("moving_variance"):
            value = rng.uniform(0.3, 2.0, weight.shape)
        else:
            value = 0.4 * rng.standard_normal(weight.shape)
        weight.assign(value.astype("float32"))


def to_numpy(x):
    """NumPy array of a tensor, a variable or a layer's list of weights."""
    if isinstance(x, list):
        return [to_numpy(v) for v in x]
    return ops.convert_to_numpy(x)


def _shape_arguments(shapes):
    return {
        f"{name}_shape": shape
        for name, shape in shapes.items()
        if not name.endswith("mask")
    }


def _check_config(layer_class, init_kwargs):
    layer = layer_class(**init_kwargs, name="some_name")
    config = layer.get_config()
    arguments = set(inspect.signature(layer_class.__init__).parameters)
    assert arguments - {"self", "kwargs"} <= set(config)
    for name, value in init_kwargs.items():
        assert config[name] == value
    from_json = layer_class.from_config(json.loads(json.dumps(config)))
    assert from_json.get_config() == config
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    revived = keras.saving.deserialize_keras_object(serialized)
    assert isinstance(revived, layer_class)
    assert revived.get_config() == config


def _check_sublayers_are_built(layer):
    for value in vars(layer).values():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, keras.layers.Layer):
                assert part.built, f"{part.name} is not built"
                _check_sublayers_are_built(part)


def _functional_model(layer, inputs, dynamic_shapes):
    symbolic = {
        name: keras.Input(dynamic_shapes[name][1:], dtype=x.dtype, name=name)
        for name, x in inputs.items()
    }
    return keras.Model(symbolic, layer(**symbolic))


def _check_symbolic(layer, inputs, dynamic_shapes, outputs):
    dtypes = {name: x.dtype for name, x in inputs.items()}
    if keras.backend.backend() == "jax":
        dtypes = {n: str(d).replace("int64", "int32") for n, d in dtypes.items()}
    symbolic = layer(
        **{n: keras.KerasTensor(dynamic_shapes[n], dtypes[n]) for n in inputs}
    )
    eager_dtype = keras.backend.standardize_dtype(outputs.dtype)
    assert keras.backend.standardize_dtype(symbolic.dtype) == eager_dtype
    eager_shape = tuple(outputs.shape)
    assert len(symbolic.shape) == len(eager_shape)
    assert symbolic.shape[0] is None
    for known, actual in zip(symbolic.shape, eager_shape, strict=True):
        assert known in (None, actual)
    assert symbolic.shape[-1] in (None, eager_shape[-1])
    static = layer.compute_output_shape(
        **_shape_arguments({n: x.shape for n, x in inputs.items()})
    )
    assert tuple(static) == eager_shape


def _check_saving(model, inputs, outputs):
    np.testing.assert_allclose(
        to_numpy(model(inputs)), to_numpy(outputs), rtol=1e-5, atol=1e-6
    )
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(to_numpy(loaded(inputs)), to_numpy(model(inputs)))


def _check_mixed_precision(layer, float32_layer, inputs, outputs, tolerance):
    layer(**inputs)
    layer.set_weights(float32_layer.get_weights())
    for weight in layer.weights:
        assert keras.backend.standardize_dtype(weight.dtype) == "float32"
    mixed = layer(**inputs)
    expected = to_numpy(outputs)
    if not np.issubdtype(expected.dtype, np.floating):
        assert keras.backend.standardize_dtype(mixed.dtype) == str(expected.dtype)
        return
    assert keras.backend.standardize_dtype(mixed.dtype) == layer.compute_dtype
    deviation = np.abs(to_numpy(ops.cast(mixed, "float32")) - expected).max()
    assert deviation <= tolerance * np.abs(expected).max()
    if "training" in inspect.signature(layer.call).parameters:
        mixed = layer(**inputs, training=True)
        assert keras.backend.standardize_dtype(mixed.dtype) == layer.compute_dtype
        assert np.isfinite(to_numpy(ops.cast(mixed, "float32"))).all()


def _check_training(model, inputs, outputs):
    rng = np.random.default_rng(1)
    targets = rng.standard_normal(tuple(outputs.shape)).astype("float32")
    before = [to_numpy(w).copy() for w in model.trainable_weights]
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss="mse",
        jit_compile=keras.backend.backend() == "jax",
    )
    model.fit(inputs, targets, batch_size=len(targets), epochs=1, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        new = to_numpy(weight)
        assert np.isfinite(new).all()
        assert (new != old).any(), f"{weight.path} was not trained"
