"""`base`: embeddings and an MLP, no attention (HCCM, Eq. 1-4)."""

import keras

from hccm_tf.models.non_visual import NonVisual, click_probability, mean_pool


def build(schema, options):
    """Builds the model; its histories are mean-pooled."""
    inputs = NonVisual(schema, options)
    features = list(inputs.features)
    if inputs.history is not None:
        features.append(mean_pool(inputs.history, inputs.history_mask))
    return keras.Model(inputs.inputs, click_probability(features, options), name="base")
