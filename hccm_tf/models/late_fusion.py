"""`late_fusion`: the category joined to the image after the CNN, not before it."""

import functools

import keras
from keras import ops

from hccm_tf.layers import Embedding, HybridCNN
from hccm_tf.models import image_encoder
from hccm_tf.models.image_encoder import build_ranker
from hccm_tf.models.non_visual import id_dropout

__all__ = ["build_image_encoder", "build_ranker", "uses_category"]


def uses_category(options):
    """It does."""
    del options
    return True


def build_image_encoder(schema, options, layers, explain=False):
    """`Dense(relu([CNN_trainable(F); E[category]] W + b))`; not explained.

    The CNN is that of `hcm`. CSCNN (KDD '20) compares with late fusion; its form is our
    choice: behind a single linear layer, a category could only shift its images, so
    that there are two with a relu between them.
    """
    del explain
    image_encoder.require_categories(schema, options.image_sides)
    feature, dim = schema["category"], options.image_embedding_dim
    cnn = layers.get(
        "hybrid_cnn", functools.partial(HybridCNN, dim, filters=options.cnn_filters)
    )
    make = functools.partial(
        Embedding,
        schema.num_rows("category"),
        feature.embedding_dim or options.embedding_dim,
    )
    embedding = layers.get("image_category_embedding", make)
    dropout = id_dropout(feature, options, layers, "image_category_dropout")
    fuse = layers.get(
        "fuse", functools.partial(keras.layers.Dense, dim, activation="relu")
    )
    project = layers.get("project", functools.partial(keras.layers.Dense, dim))

    def encode(maps, category, mask):
        images = cnn(maps, feature_map_mask=mask)
        categories = embedding(dropout(category))
        return project(fuse(ops.concatenate([images, categories], axis=-1)))

    return image_encoder.build_image_encoder(encode, options)
