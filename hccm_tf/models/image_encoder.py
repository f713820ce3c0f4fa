"""What the models with images share.

Such a model consists of two, so that training, serving and export use the same weights:

- `image_encoder`: `image_map [U, h, w, c], image_category [U]` → `[U, D]`;
- `ranker`: features and the candidate's and the history's vectors → click probability.

In training U counts the batch's unique images, and the row numbers `candidate_image [B]`
and `history_image [B, T]` pick vectors; where `ModelOptions.image_sides` is not both,
there is one of them. In serving the vectors come from a table of all images and the
encoder is not there. Row 0 means no image.
"""

import keras
from keras import ops

from hccm_tf.errors import InputError
from hccm_tf.models import ranker


def require_categories(schema, image_sides):
    """Raises an `InputError` unless what is seen of images has a category.

    The clicks' categories are rows of the candidates', which are needed in any case.
    """
    clicks = () if image_sides == "candidate" else ("history_category",)
    for name in ("category", *clicks):
        if name not in schema:
            raise InputError(f"schema: a model with category prior needs {name}")


def build_image_encoder(encode, options):
    """The `image_encoder` around a function `encode(maps, category, mask)`."""
    maps = keras.Input(options.feature_map_shape, dtype="float16", name="image_map")
    category = keras.Input((), dtype="int32", name="image_category")
    x = maps
    if options.channel_mean is not None:
        x = keras.layers.Normalization(
            mean=options.channel_mean, variance=options.channel_std**2
        )(x)
    # Category 0 stands beside padding only, see `deduplicate`.
    outputs = encode(x, category, ops.not_equal(category, 0))
    return keras.Model(
        {"image_map": maps, "image_category": category}, outputs, name="image_encoder"
    )


def with_channel_attention(images, cnn, maps, category=None):
    """Representations and what explains them, for `encode_images`.

    Args:
        images: what `cnn`, a `HybridCNN`, gives for `maps` and `category`.
        cnn: likewise.
        maps: likewise.
        category: likewise, `None` if `cnn` takes none.

    Returns:
        `images`, or if the layer weighs channels, a dict of them as `representation`
        and of `channel_attention [U, c]`.
    """
    if cnn.attention is None:
        return images
    prior = None if category is None else cnn.prior(category)
    _, weights = cnn.attention(maps, prior=prior, return_attention_scores=True)
    return {"representation": images, "channel_attention": weights}


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
    """Whose images a model or its ranker takes: tuple of `"candidate"` and `"history"`."""
    rankers = [layer for layer in model.layers if layer.name == "ranker"]
    inputs = [model, *rankers][-1].input
    return tuple(s for s in ("candidate", "history") if f"{s}_representation" in inputs)
