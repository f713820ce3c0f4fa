import keras
import numpy as np
import pytest

from hccm_tf.layers import IdDropout
from tests.layers.run_layer_test import run_layer_test, to_numpy

IDS = np.random.default_rng(0).integers(5, 1000, size=(200, 50)).astype("int32")
IDS[:, 30:] = 0


def test_layer():
    run_layer_test(
        IdDropout,
        {"rate": 0.3, "oov_index": 2, "seed": 7},
        {"ids": IDS},
        expected_num_trainable_weights=0,
        expected_num_variables=1,
        num_dynamic_dims=2,
    )


def test_layer_with_rates_of_ids():
    run_layer_test(
        IdDropout,
        {"rate": 0.3, "num_ids": 1000, "seed": 7},
        {"ids": IDS},
        expected_num_trainable_weights=0,
        expected_num_non_trainable_weights=1,
        expected_num_variables=2,
        num_dynamic_dims=2,
    )


def test_each_id_has_its_own_rate():
    layer = IdDropout(0.0, seed=1, num_ids=4)
    layer.build((None, 4))
    layer.rates.assign([1.0, 1.0, 0.25, 1.0])
    ids = np.tile(np.arange(4, dtype="int32"), (6000, 1))
    outputs = to_numpy(layer(ids, training=True))
    np.testing.assert_array_equal(outputs[:, [0, 1, 3]], [[0, 1, 1]] * 6000)
    replaced = outputs[:, 2] == 1
    assert (outputs[~replaced, 2] == 2).all()
    # Five standard deviations.
    assert abs(replaced.mean() - 0.25) <= 5 * np.sqrt(0.25 * 0.75 / 6000)


@pytest.mark.parametrize("training", [None, False])
def test_inference_is_identity(training):
    outputs = IdDropout(0.9)(IDS, training=training)
    np.testing.assert_array_equal(to_numpy(outputs), IDS)


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_replaces_ids_but_not_padding(rate):
    outputs = to_numpy(IdDropout(rate, oov_index=3, seed=1)(IDS, training=True))
    np.testing.assert_array_equal(outputs[:, 30:], 0)
    replaced = outputs[:, :30] != IDS[:, :30]
    np.testing.assert_array_equal(outputs[:, :30][replaced], 3)
    # Five standard deviations of the share among 6000 ids.
    assert abs(replaced.mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / 6000)


def test_draws_anew_in_each_call_and_repeats_with_the_seed():
    layer = IdDropout(0.5, seed=1)
    first, second = (to_numpy(layer(IDS, training=True)) for _ in range(2))
    assert (first != second).any()
    again = to_numpy(IdDropout(0.5, seed=1)(IDS, training=True))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_keeps_the_dtype(dtype):
    if dtype == "int64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no int64 by default.")
    ids = IDS.astype(dtype)
    if dtype == "int64":
        ids = ids + np.int64(2**40) * (ids > 0)
    for training in (False, True):
        outputs = IdDropout(0.5, seed=1)(ids, training=training)
        assert keras.backend.standardize_dtype(outputs.dtype) == dtype
        kept = to_numpy(outputs) != 1
        np.testing.assert_array_equal(to_numpy(outputs)[kept], ids[kept])
    symbolic = IdDropout(0.5)(keras.KerasTensor((None, 50), dtype=dtype))
    assert symbolic.dtype == dtype


def test_invalid_arguments():
    for rate in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"Received: rate={rate}"):
            IdDropout(rate)
    with pytest.raises(ValueError, match="Received: oov_index=0"):
        IdDropout(0.1, oov_index=0)
