"""What the models with images share.

Such a model consists of two, so that training, serving and export use the same weights:

- `image_encoder`: `image_map [U, h, w, c], image_category [U]` → `[U, D]`;
- `ranker`: features and the candidate's and the history's vectors → click probability.

In training U counts the batch's unique images, and the row numbers `item_image [B]`
and `history_image [B, T]` pick vectors; of `ModelOptions.image_sides` other than both,
only one of them is there. In serving those come from a table of all
images and the encoder is not there. Row 0 means no image.
"""

import keras
from keras import ops

from hccm_tf.models import ranker


def build_image_encoder(encode, options):
    """The `image_encoder` around a function `encode(maps, category, mask)`."""
    maps = keras.Input(options.feature_map_shape, dtype="float16", name="image_map")
    category = keras.Input((), dtype="int32", name="image_category")
    x = maps
    if options.channel_mean is not None:
        x = keras.layers.Normalization(
            mean=options.channel_mean, variance=options.channel_std**2
        )(x)
    # Category 0 stands beside padding only, see `hccm_tf.data.pipeline.deduplicate`.
    outputs = encode(x, category, ops.not_equal(category, 0))
    return keras.Model(
        {"image_map": maps, "image_category": category}, outputs, name="image_encoder"
    )


def build_ranker(schema, options, layers, **form):
    """The part of a model with images that is no `image_encoder`."""
    return ranker.build_ranker(
        "ranker",
        schema,
        options,
        layers,
        image_dim=options.image_embedding_dim,
        **form,
    )


def join(name, encoder, ranker):
    """The model for training: encodes the batch's images once and ranks."""
    vectors = encoder(encoder.input)
    inputs = {name: ranker.input[name] for name in ranker.input}
    representations = {}
    for side in sides(ranker):
        rows = inputs[f"{side}_image"]
        del inputs[f"{side}_representation"]
        representations[f"{side}_representation"] = ops.take(vectors, rows, axis=0)
    outputs = ranker({**inputs, **representations})
    return keras.Model({**inputs, **encoder.input}, outputs, name=name)


def sides(model):
    """Whose images a model or a ranker takes: tuple of `"item"` and `"history"`."""
    return tuple(s for s in ("item", "history") if f"{s}_image" in model.input)
