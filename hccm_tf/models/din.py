"""`din`: DIN attention over the item history (Zhou et al., KDD '18), no images."""

import keras

from hccm_tf.models.non_visual import NonVisual, click_probability, din_interest


def build(schema, options):
    """Builds the model."""
    inputs = NonVisual(schema, options)
    features = inputs.features + din_interest(inputs, options)
    return keras.Model(inputs.inputs, click_probability(features, options), name="din")
