"""A model learns the same of requests as of their impressions one by one."""

import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.layers import Dice
from tests.models import pixels
from tests.models.batches import (
    ATTENTIONS,
    IMAGE_MODELS,
    LOSS,
    MASK,
    MODELS,
    build,
    inputs_of,
    outcomes,
    read_by,
)
from tests.models.rows import single_requests

CASES = [
    (name, {**ATTENTIONS[attention], "products": True})
    for name in MODELS
    for attention in (ATTENTIONS if name in IMAGE_MODELS else ["din"])
]
CASES += [
    ("hccm", {"image_sides": side, "similarity": "cosine", "products": True})
    for side in ("candidate", "history")
]
CASES += [("din", ATTENTIONS["dot_product"])]
CASES += [("cscnn", {}), ("tests.models.own_model:Linear", {})]


def _ids(value):
    if isinstance(value, str):
        return value
    return value.get("image_sides") or value.get("image_attention", "")


def _case(name, options):
    """`(model, inputs)`."""
    if name == "cscnn":
        return pixels.build(), pixels.pixel_inputs()
    model = build(name, **read_by(name, options))
    return model, {k: v for k, v in inputs_of(name).items() if k in model.input}


def _step(model, inputs, labels, weights):
    """The loss, and by name the gradients and the moving averages after a step.

    Afterwards the model is as before.
    """
    before = [weight.numpy() for weight in model.non_trainable_weights]
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        loss = LOSS(labels, outputs, sample_weight=weights)
    variables = model.trainable_weights
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    found = {"loss": loss.numpy()}
    for variable, gradient in zip(variables, gradients, strict=True):
        found[variable.path] = tf.convert_to_tensor(gradient).numpy()
    for weight, value in zip(model.non_trainable_weights, before, strict=True):
        found[weight.path] = weight.numpy()
        if "moving" in weight.path:
            assert (found[weight.path] != value).any(), weight.path
        weight.assign(value)
    return found


def _assert_equal(found, expected):
    assert set(found) == set(expected)
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, atol=1e-5, err_msg=path)


@pytest.mark.parametrize(("name", "options"), CASES, ids=_ids)
def test_requests_and_their_impressions_teach_the_same(name, options):
    model, inputs = _case(name, options)
    labels, weights = outcomes()
    expected = _step(
        model, single_requests(inputs), labels[MASK][:, None], weights[MASK][:, None]
    )
    assert 0.1 < expected["loss"] < 10
    _assert_equal(_step(model, inputs, labels, weights), expected)
    # What pads a request may be anything.
    rng = np.random.default_rng(9)
    others = dict(inputs)
    for key in {"item_id", "category", "price", "candidate_image"} & set(inputs):
        garbage = rng.choice(inputs[key][MASK], MASK.shape)
        others[key] = np.where(MASK, inputs[key], garbage)
    labels = np.where(MASK[..., None], labels, 1 - labels)
    _assert_equal(_step(model, others, labels, weights), expected)


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_the_mask_is_what_hides_it(name):
    model, inputs = _case(name, {})
    expected = _step(model, inputs, *outcomes())
    shown = {**inputs, "candidate_mask": np.ones_like(MASK)}
    found = _step(model, shown, *outcomes())
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, Dice)]
    assert len(layers) == (1 if name == "din" else 2)
    for layer in layers:
        for weight in (layer.moving_mean, layer.moving_variance):
            path = weight.path
            assert np.abs(expected[path] - found[path]).max() > 1e-4, path
