"""A schema, a batch and models of it that have a say in everything."""

import keras
import numpy as np
import tensorflow as tf

from hccm_tf import models
from hccm_tf.data.deduplication import deduplicate
from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.models import ImageInput, build_model, find_model
from hccm_tf.models.ensemble import EnsembleLoss
from tests.conftest import TINY

# Those that take pixels have tests of their own.
MODELS = [name for name, model in models.MODELS.items() if not model.takes_pixels]
IMAGE_MODELS = [name for name in MODELS if models.MODELS[name].has_images]
SHAPE = (5, 4, 6)
SIZES = np.array([3, 1, 4, 2, 4, 1, 2])  # numbers of candidates
REQUESTS, CANDIDATES, BATCH = len(SIZES), SIZES.max(), SIZES.sum()
MASK = np.arange(CANDIDATES) < SIZES[:, None]
LENGTH, ROWS, CATEGORIES = 4, 9, 5
# As models are compiled for training.
LOSS = EnsembleLoss(reduction="mean_with_sample_weight")
# The impression whose candidate has no image: of the third request, one of several.
WITHOUT_IMAGE = 5
SMALL = {**TINY, "id_dropout": 0.0}
SCHEMA = Schema(
    (
        Feature("user_id", "vocabulary", size=7, frequency=2.0),
        Feature("item_id", "vocabulary", size=20, frequency=1.5, candidate=True),
        Feature(
            "category",
            "vocabulary",
            "string",
            size=CATEGORIES,
            frequency=9.0,
            candidate=True,
        ),
        Feature("zip", "hash", "string", size=5, embedding_dim=3),
        Feature("price", "float", "float32", candidate=True),
        Feature("history_item_id", "sequence", shares="item_id"),
        Feature("history_category", "sequence", "string", shares="category"),
    ),
    max_history=LENGTH,
    counts={
        "user_id": np.arange(7),
        "item_id": np.arange(20),
        "category": np.array([0, 50, 3, 20, 1]),
    },
)


# How the images are attended and compared, and what else there is to choose.
ATTENTIONS = {
    "din": {"image_attention": "din", "similarity": "cosine"},
    "dot_product": {
        "image_attention": "dot_product",
        "similarity": "category_cosine",
        "shortcut": True,
        "match_shares": True,
    },
    "multi_query": {"image_attention": "multi_query", "similarity": "histogram"},
}


def read_by(name, options):
    """Those of a dict of options that a model reads."""
    names = find_model(name).Options.names()
    return {key: value for key, value in options.items() if key in names}


def small(name, **options):
    """Those of `SMALL` that a model reads, and further options."""
    return {**read_by(name, SMALL), **options}


def define(name, schema=SCHEMA, **options):
    """The definition of a model of `small` options, for maps of `SHAPE`."""
    model = find_model(name)
    images = ImageInput(SHAPE) if model.has_images else None
    return model(schema, model.Options(**small(name, **options)), images)


def build(name, seed=0, **options):
    """A model of `small` options, weights away from where they start."""
    keras.utils.set_random_seed(seed)
    if find_model(name).has_images:
        options["feature_map_shape"] = SHAPE
    model = build_model(name, SCHEMA, **small(name, **options))
    # Away from zero biases and symmetric starts, so that every part has a say.
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.2, weight.shape))
    for weight in model.non_trainable_variables:
        if weight.path.endswith("moving_mean"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
        if weight.path.endswith("moving_variance"):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return model


def slots(seed=0):
    """A batch as the data has it: store rows and categories of each slot, maps.

    What pads the candidates has random features too, but no image.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, LENGTH + 1, REQUESTS)
    lengths[:3] = 0, LENGTH, LENGTH - 1
    padding = np.arange(LENGTH) >= lengths[:, None]
    clicks, shown = (REQUESTS, LENGTH), (REQUESTS, CANDIDATES)
    features = {
        "user_id": rng.integers(1, 9, REQUESTS),
        "item_id": rng.integers(1, 22, shown),
        "category": rng.integers(1, CATEGORIES + 2, shown),
        "zip": rng.integers(2, 7, REQUESTS),
        "history_item_id": rng.integers(1, 22, clicks) * ~padding,
        "history_category": rng.integers(1, 7, clicks) * ~padding,
    }
    features = {name: value.astype(np.int32) for name, value in features.items()}
    price = rng.normal(size=shown)
    features["price"] = np.where(MASK, price, 50 * price).astype(np.float32)
    candidate_rows = rng.integers(1, ROWS, shown)
    candidate_rows[place_of(WITHOUT_IMAGE)] = 0
    candidate_rows *= MASK
    history_rows = rng.integers(0, ROWS, clicks) * ~padding
    maps = rng.normal(size=(ROWS, *SHAPE)).astype(np.float16)
    maps[0] = 0
    return {**features, "candidate_mask": MASK}, candidate_rows, history_rows, maps


def place_of(impression):
    """`(request, candidate)` of an impression's number."""
    return tuple(np.argwhere(MASK)[impression])


def outcomes(seed=0):
    """Labels `[R, N, 1]` and weights `[R, N]` of the batch; padding has labels too."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(MASK.size) % 2
    weights = rng.choice([0.5, 1, 3], MASK.shape) * MASK
    return labels.reshape(*MASK.shape, 1).astype(np.float32), np.float32(weights)


def inputs_of(name, seed=0):
    """The deduplicated form of the batch; what pads the candidates has images too."""
    features, candidate_rows, history_rows, maps = slots(seed)
    if not find_model(name).has_images:
        return features
    rows, category, candidate_image, history_image = (
        tensor.numpy()
        for tensor in deduplicate(
            tf.constant(candidate_rows),
            tf.constant(features["category"]),
            tf.constant(history_rows),
            tf.constant(features["history_category"]),
        )
    )
    garbage = np.random.default_rng(seed).integers(0, len(rows), MASK.shape)
    return {
        **features,
        "image_map": maps[rows],
        "image_category": category,
        "candidate_image": np.where(MASK, candidate_image, garbage).astype(np.int32),
        "history_image": history_image,
    }


def plain_inputs(seed=0):
    """One row of `image_map` for each slot, nothing shared."""
    features, candidate_rows, history_rows, maps = slots(seed)
    rows = np.concatenate([[0], candidate_rows.ravel(), history_rows.ravel()])
    category = np.concatenate(
        [[0], features["category"].ravel(), features["history_category"].ravel()]
    )
    number = (np.arange(len(rows)) * (rows > 0)).astype(np.int32)
    candidate_image, history_image = np.split(number[1:], [MASK.size])
    return {
        **features,
        "image_map": maps[rows],
        "image_category": (category * (rows > 0)).astype(np.int32),
        "candidate_image": candidate_image.reshape(MASK.shape),
        "history_image": history_image.reshape(REQUESTS, LENGTH),
    }


def predict(model, inputs):
    """The click probabilities `[B]` of the impressions, also those of requests."""
    p = model(inputs, training=False).numpy()[..., 0]
    return p[inputs["candidate_mask"]] if "candidate_mask" in inputs else p


def encode(model, maps, category, training=False):
    """What a model's image encoder gives."""
    encoder = model.get_layer("image_encoder")
    inputs = {"image_map": maps, "image_category": category}
    return encoder(inputs, training=training).numpy()


def ranker_inputs(model, inputs):
    """What the ranker takes of a batch."""
    if "image_map" not in inputs:
        return inputs
    inputs = dict(inputs)
    maps, category = inputs.pop("image_map"), inputs.pop("image_category")
    vectors = encode(model, maps, category)
    for side in ("candidate", "history"):
        if f"{side}_image" in inputs:
            inputs[f"{side}_representation"] = vectors[inputs[f"{side}_image"]]
    return inputs
