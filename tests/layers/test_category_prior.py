import keras
import numpy as np
import pytest

from hccm_tf.layers import CategoryPrior
from tests.layers.run_layer_test import randomize_weights, run_layer_test, to_numpy

CATEGORY = np.array([[3, 0, 1], [2, 3, 0]], dtype="int32")


def test_layer():
    run_layer_test(
        CategoryPrior,
        {"num_categories": 4, "map_shape": (2, 3)},
        {"category": CATEGORY},
        expected_num_trainable_weights=1,
        num_dynamic_dims=2,
    )


@pytest.mark.parametrize("category", [CATEGORY, CATEGORY[0]], ids=["2d", "1d"])
def test_equals_numpy(category):
    layer = CategoryPrior(num_categories=4, map_shape=(2, 3))
    layer(category)
    randomize_weights(layer)
    table = layer.get_weights()[0].copy()
    table[0] = 0.0
    np.testing.assert_array_equal(to_numpy(layer(category)), table[category])


def test_starts_with_unit_variance():
    layer = CategoryPrior(num_categories=200, map_shape=(5, 5))
    layer(CATEGORY)
    assert np.std(layer.get_weights()[0]) == pytest.approx(1.0, abs=0.05)


def test_index_0_is_not_trained():
    layer = CategoryPrior(num_categories=4, map_shape=(2, 3))
    model = keras.Sequential([keras.Input((3,), dtype="int32"), layer])
    randomize_weights(layer)
    before = layer.get_weights()[0].copy()
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
    model.fit(CATEGORY, np.ones((2, 3, 6), "float32"), verbose=0)
    after = layer.get_weights()[0]
    np.testing.assert_array_equal(after[0], before[0])
    assert (after[1:] != before[1:]).all()


def test_invalid_num_categories():
    with pytest.raises(ValueError, match="Received: num_categories=0"):
        CategoryPrior(num_categories=0, map_shape=(2, 3))


def test_how_large_priors_are_at_the_start():
    for stddev in (0.1, 1.0):
        layer = CategoryPrior(500, (5, 5), stddev)
        prior = to_numpy(layer(np.arange(1, 500)))
        assert abs(prior.std() - stddev) < 0.05 * stddev
