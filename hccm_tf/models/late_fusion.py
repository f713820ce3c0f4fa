"""`late_fusion`: the category joined to the image after the CNN, not before it."""

import functools

import keras
from keras import ops

from hccm_tf.layers import Embedding, HybridCNN
from hccm_tf.models.image_model import (
    ImageModel,
    cnn_options,
    map_encoder,
    with_shortcut,
)
from hccm_tf.models.non_visual import id_dropout
from hccm_tf.models.options import CNNOptions


class LateFusion(ImageModel):
    """`Dense(relu([CNN_trainable(F); E[category]] W + b))`; not explained.

    The CNN is that of `hcm`. CSCNN (KDD '20) compares with late fusion; its form is our
    choice: behind a single linear layer, a category could only shift its images, so
    that there are two with a relu between them.
    """

    name = "late_fusion"
    tells_category = True
    Options = CNNOptions

    def image_encoder(self, layers, explain=False):
        del explain
        feature, dim = self.schema["category"], self.image_dim
        make = functools.partial(HybridCNN, dim, **cnn_options(self.options))
        cnn = layers.get("hybrid_cnn", make)
        make = functools.partial(
            Embedding,
            self.schema.num_rows("category"),
            feature.embedding_dim or self.options.embedding_dim,
        )
        embedding = layers.get("image_category_embedding", make)
        dropout = id_dropout(self, feature, layers, "image_category_dropout")
        make = functools.partial(keras.layers.Dense, dim, activation="relu")
        fuse = layers.get("fuse", make)
        project = layers.get("project", functools.partial(keras.layers.Dense, dim))

        def encode(maps, category, mask):
            images = cnn(maps, feature_map_mask=mask)
            categories = embedding(dropout(category))
            images = project(fuse(ops.concatenate([images, categories], axis=-1)))
            return with_shortcut(images, maps, mask, self.options, layers)

        return map_encoder(self.images, encode, self.options.map_dropout)
