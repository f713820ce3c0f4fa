"""Models `cscnn` of the batch's schema, and pixels for them."""

import keras
import numpy as np

from hccm_tf.models import ImageInput, build_model
from hccm_tf.models.cscnn import CSCNN
from tests.models.batches import MASK, SCHEMA, WITHOUT_IMAGE, inputs_of, place_of, small

SHAPE = (32, 32, 3)
OPTIONS = {
    **small("cscnn"),
    "products": True,
    "cnn_layer": "expanded_conv_2_add",
}
IMAGES = 9


def define(**options):
    """The definition of a `cscnn` of `OPTIONS` and others."""
    return CSCNN(SCHEMA, CSCNN.Options(**{**OPTIONS, **options}), ImageInput(SHAPE))


def build(attention="category", seed=0, **options):
    """A `cscnn` of `OPTIONS` and others, weights away from where they start."""
    options = {**OPTIONS, "cnn_attention": attention, **options}
    keras.utils.set_random_seed(seed)
    model = build_model("cscnn", SCHEMA, feature_map_shape=SHAPE, **options)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.1, weight.shape))
    for weight in model.non_trainable_variables:
        if weight.path.endswith("moving_variance"):
            weight.assign(rng.uniform(0.01, 0.1, weight.shape))
    return model


def pixel_inputs():
    """The batch's features, and pixels of `IMAGES` images; padding has images too."""
    inputs = inputs_of("din")
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (IMAGES + 3, *SHAPE)).astype(np.uint8)
    kinds = rng.integers(1, 6, IMAGES + 3).astype(np.int32)
    # Row 0 is no image; the last two pad.
    for row in (0, -1, -2):
        pixels[row], kinds[row] = 0, 0
    item = rng.integers(1, IMAGES + 1, MASK.shape).astype(np.int32)
    item[place_of(WITHOUT_IMAGE)] = 0
    return {
        **inputs,
        "image_map": pixels,
        "image_category": kinds,
        "candidate_image": item,
    }
