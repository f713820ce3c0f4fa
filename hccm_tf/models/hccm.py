"""`hccm`: the hybrid CNN with category prior (HCCM, Eq. 8-15)."""

from hccm_tf.layers import HybridCNN
from hccm_tf.models.non_visual import id_dropout
from hccm_tf.models.visual import build_with_images, image_encoder


def build(schema, options):
    """Builds the model; the schema needs the feature `category`."""
    cnn = HybridCNN(
        options.image_embedding_dim,
        num_categories=schema.num_rows("category"),
        filters=options.cnn_filters,
        name="hybrid_cnn",
    )
    dropout = id_dropout(schema["category"], options, "image_category_dropout")
    encoder = image_encoder(
        options, lambda maps, category, mask: cnn(maps, dropout(category), mask)
    )
    return build_with_images("hccm", schema, options, encoder)
