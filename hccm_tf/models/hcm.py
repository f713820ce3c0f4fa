"""`hcm`: the hybrid CNN without category prior (HCCM, 3.1.3)."""

from hccm_tf.layers import HybridCNN
from hccm_tf.models.visual import build_with_images, image_encoder


def build(schema, options):
    """Builds the model."""
    cnn = HybridCNN(
        options.image_embedding_dim, filters=options.cnn_filters, name="hybrid_cnn"
    )
    encoder = image_encoder(
        options, lambda maps, category, mask: cnn(maps, feature_map_mask=mask)
    )
    return build_with_images("hcm", schema, options, encoder)
