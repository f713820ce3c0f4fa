"""Several rankers over the same images, each with a loss of its own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss

from hccm_tf.models import find_model
from hccm_tf.models.ensemble import EnsembleLoss, rankers_of
from tests.models.batches import (
    LOSS,
    MASK,
    build,
    define,
    inputs_of,
    outcomes,
    predict,
    ranker_inputs,
)
from tests.models.rows import impressions

SIZE = 3
OWN = "tests.models.own_model:"
OPTIONS = {
    "din": {"products": True},
    "hccm": {"products": True, "similarity": "category_cosine", "shortcut": True},
    f"{OWN}MyModel": {},
    f"{OWN}Linear": {},
}


@pytest.fixture(params=OPTIONS)
def name(request):
    return request.param


def _ensemble(name):
    """The model, its definition, and a model of one ranker for each of its weights."""
    options = OPTIONS[name]
    definition = define(name, ensemble_size=SIZE, **options)
    model, one = build(name, ensemble_size=SIZE, **options), define(name, **options)
    alone = []
    for ranker in rankers_of(definition.ranker_of(model)):
        alone.append(one.build())
        one.ranker_of(alone[-1]).set_weights(ranker.get_weights())
        if one.has_images:
            encoder = model.get_layer("image_encoder").get_weights()
            alone[-1].get_layer("image_encoder").set_weights(encoder)
    assert len(alone) == SIZE
    return model, definition, alone


def test_the_mean_of_rankers_with_weights_of_their_own(name):
    model, definition, alone = _ensemble(name)
    inputs = inputs_of(name)
    expected = [predict(one, inputs) for one in alone]
    assert np.ptp(expected, axis=0).min() > 1e-4
    np.testing.assert_allclose(predict(model, inputs), np.mean(expected, 0), atol=1e-6)
    rankers = [definition.ranker_of(one) for one in (model, *alone)]
    counts = [one.count_params() for one in rankers]
    assert counts[0] == sum(counts[1:])


def _step(model, inputs):
    """Probabilities, loss and gradients of a step."""
    labels, counts = outcomes()
    with tf.GradientTape() as tape:
        p = model(inputs, training=True)
        loss = LOSS(labels, p, sample_weight=counts)
    gradients = tape.gradient(loss, [one.value for one in model.trainable_weights])
    return p.numpy(), loss.numpy(), [tf.convert_to_tensor(g).numpy() for g in gradients]


def test_each_learns_from_its_own_loss(name):
    """And the images' vectors from all of them."""
    model, definition, alone = _ensemble(name)
    inputs, (labels, counts) = inputs_of(name), outcomes()
    p, loss, gradients = _step(model, inputs)
    assert p.shape == (*MASK.shape, SIZE)
    every = [
        np.broadcast_to(x, p.shape).ravel() for x in (labels, p, counts[..., None])
    ]
    expected = log_loss(*every[:2], sample_weight=every[2])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    steps = [_step(one, inputs)[2] for one in alone]
    shared = 0
    if find_model(name).has_images:
        shared = len(model.get_layer("image_encoder").trainable_weights)
    of_images = zip(*(step[:shared] for step in steps), strict=True)
    expected = [np.mean(same, axis=0) for same in of_images]
    expected += [own / SIZE for step in steps for own in step[shared:]]
    for found, value in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-6)
        assert np.abs(value).max() > 0 or value.ndim == 1
    for number, one in enumerate(alone):
        ranker = rankers_of(definition.ranker_of(model))[number]
        moved = definition.ranker_of(one).non_trainable_weights
        for found, value in zip(ranker.non_trainable_weights, moved, strict=True):
            np.testing.assert_allclose(found, value, atol=1e-6)


def test_the_loss_of_one_ranker_is_that_of_keras():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (5, 3, 1)).astype("float32")
    p, weights = rng.uniform(size=(5, 3, 1)).astype("float32"), rng.uniform(size=(5, 3))
    options = {"reduction": "mean_with_sample_weight", "label_smoothing": 0.1}
    expected = keras.losses.BinaryCrossentropy(**options)(labels, p, weights)
    assert EnsembleLoss(**options)(labels, p, weights) == expected


def test_its_forms_and_its_file(name, tmp_path):
    model, definition, alone = _ensemble(name)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    inputs = inputs_of(name)
    expected = np.mean([predict(one, inputs) for one in alone], axis=0)
    np.testing.assert_allclose(predict(model, inputs), expected, atol=1e-6)
    forms = definition.forms(model)
    rows = impressions(ranker_inputs(model, inputs))
    np.testing.assert_allclose(predict(forms["ranker"], rows), expected, atol=1e-5)
    if "explain" not in forms:
        return
    one = define(name, **OPTIONS[name])
    weights = [one.forms(member)["explain"](rows) for member in alone]
    found = forms["explain"](rows)
    assert set(found) == set(weights[0])
    for key, value in found.items():
        mean = np.mean([each[key] for each in weights], axis=0)
        np.testing.assert_allclose(value, mean, atol=1e-6)


def test_another_size_than_the_models_is_an_error(name):
    model, *_ = _ensemble(name)
    for size in (1, SIZE - 1, SIZE + 1):
        with pytest.raises(
            ValueError, match="not the options that the model was built"
        ):
            define(name, ensemble_size=size, **OPTIONS[name]).forms(model)


def test_probabilities_stay_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build("din", ensemble_size=SIZE)
    finally:
        keras.config.set_dtype_policy(policy)
    hidden = model.get_layer("ranker_0").get_layer("hidden_0")
    assert hidden.compute_dtype == "bfloat16"
    for training in (False, True):
        assert model(inputs_of("din"), training=training).dtype == "float32"
