"""`hccm`: the hybrid CNN with category prior (HCCM, Eq. 8-15)."""

import functools

from hccm_tf.layers import HybridCNN
from hccm_tf.models import image_encoder
from hccm_tf.models.image_encoder import build_ranker
from hccm_tf.models.non_visual import id_dropout

__all__ = ["build_image_encoder", "build_ranker", "uses_category"]


def uses_category(options):
    """It does."""
    del options
    return True


def build_image_encoder(schema, options, layers, explain=False):
    """Options leave out parts of it; explained by the channel attention.

    Raises:
        InputError: if the schema has no `category` or `history_category`.
    """
    image_encoder.require_categories(schema, options.image_sides)
    make = functools.partial(
        HybridCNN,
        options.image_embedding_dim,
        num_categories=schema.num_rows("category"),
        filters=options.cnn_filters,
        channel_attention=options.channel_attention,
        prior_channel=options.prior_channel,
    )
    cnn = layers.get("hybrid_cnn", make)
    dropout = id_dropout(schema["category"], options, layers, "image_category_dropout")

    def encode(maps, category, mask):
        category = dropout(category)
        images = cnn(maps, category, mask)
        if not explain:
            return images
        return image_encoder.with_channel_attention(images, cnn, maps, category)

    return image_encoder.build_image_encoder(encode, options)
