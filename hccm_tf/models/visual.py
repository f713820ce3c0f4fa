"""What the models with an image history share (HCCM, Eq. 14-15).

Such a model consists of two models, so that training, serving and export use the same
weights:

- `image_encoder`: `image_map [U, h, w, c], image_category [U]` → `[U, D]`;
- `ranker`: features, `image_representation [U, D]` and the row numbers `item_image
  [B]` and `history_image [B, T]` into it → click probability `[B, 1]`.

In training U counts the batch's unique images; in serving the representation is a
table of all images and the encoder is not there. Row 0 means no image.
"""

import keras
from keras import ops

from hccm_tf.layers import CosineSimilarity
from hccm_tf.models.non_visual import (
    NonVisual,
    click_probability,
    din_interest,
    mean_pool,
)


def image_encoder(options, encode, num_categories=None):
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


def dot_product_attention(query, keys, mask):
    """softmax(q·k / √D) k over the non-masked keys, 0 if there is none (Eq. 14)."""
    interest = ops.dot_product_attention(
        query[:, None, None],
        keys[:, :, None],
        keys[:, :, None],
        mask=mask[:, None, None],
    )[:, 0, 0]
    return interest * ops.cast(ops.any(mask, axis=1, keepdims=True), interest.dtype)


def _image_interest(options, query, keys, mask, has_image):
    """x_v of Eq. 14 and its options, 0 where the candidate has no image."""
    if options.image_attention == "din":
        attention = options.din_attention("image_attention")
        interest = attention(query, keys, keys_mask=mask)
    else:
        interest = dot_product_attention(query, keys, mask)
    features = [interest]
    if options.products:
        features += [query * interest, query * mean_pool(keys, mask)]
    if options.similarity == "cosine":
        features.append(CosineSimilarity(name="image_similarity")(query, keys, mask))
    return [feature * has_image for feature in features] + [1 - has_image]


def build_with_images(name, schema, options, encoder):
    """A model that attends over the image history with `encoder`'s vectors."""
    non_visual = NonVisual(schema, options)
    dim = encoder.output_shape[-1]
    table = keras.Input((dim,), name="image_representation")
    item = keras.Input((), dtype="int32", name="item_image")
    history = keras.Input((None,), dtype="int32", name="history_image")
    has_image = ops.cast(ops.not_equal(item, 0), table.dtype)[:, None]
    visual = _image_interest(
        options,
        query=ops.take(table, item, axis=0),
        keys=ops.take(table, history, axis=0),
        mask=ops.not_equal(history, 0),
        has_image=has_image,
    )
    features = non_visual.features + din_interest(non_visual, options) + visual
    rows = {"item_image": item, "history_image": history}
    ranker = keras.Model(
        {**non_visual.inputs, **rows, "image_representation": table},
        click_probability(features, options),
        name="ranker",
    )
    outputs = ranker(
        {**non_visual.inputs, **rows, "image_representation": encoder(encoder.input)}
    )
    return keras.Model(
        {**non_visual.inputs, **rows, **encoder.input}, outputs, name=name
    )
