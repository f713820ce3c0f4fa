"""`din_fixed_cnn`: the two-stage form, pooled maps → Dense (HCCM, 3.1.3)."""

import keras

from hccm_tf.models.visual import build_with_images, image_encoder


def build(schema, options):
    """Builds the model; no convolution is trained and no category is used."""
    dense = keras.layers.Dense(options.image_embedding_dim, name="projection")
    encoder = image_encoder(
        options,
        lambda maps, category, mask: dense(keras.layers.GlobalAveragePooling2D()(maps)),
    )
    return build_with_images("din_fixed_cnn", schema, options, encoder)
