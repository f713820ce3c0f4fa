"""Several rankers as one: each learns for itself, and the mean of them answers."""

import re

import keras
from keras import ops

NAME = "ranker_{}"


def build_ensemble(model, layers, many_candidates=False, explain=False):
    """Builds the `ensemble_size` rankers of a model's options as one ranker.

    Each is what `model.ranker` builds, with weights of its own: embeddings, attentions,
    MLP. In training the output is every ranker's click probability, `[B, *, K]`, for
    `EnsembleLoss`: a loss of their mean would let them lean on each other. Otherwise it
    is their mean, `[B, *, 1]`.

    Args:
        model: `hccm_tf.models.model.Model`.
        layers: `LayerPool`; a second ranker from the same pool has the same weights.
        many_candidates: whether a row has N candidates.
        explain: whether the outputs are the attentions' weights instead, their mean.

    Returns:
        `keras.Model` as `model.ranker` returns it.

    References:
    - B. Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation
      using Deep Ensembles, NeurIPS 2017.
    - Y. Gorishniy et al., TabM, ICLR 2025, which also trains all at once, with a part
      that they share.
    """
    size = model.options.ensemble_size
    if size == 1:
        return model.ranker(layers, many_candidates, explain)
    rankers = []
    for number in range(size):
        pool = layers.part(NAME.format(number))
        rankers.append(model.ranker(pool, many_candidates, explain))
    name, inputs = rankers[0].name, rankers[0].input
    for number, ranker in enumerate(rankers):
        ranker.name = NAME.format(number)
    outputs = [ranker(inputs) for ranker in rankers]
    if explain:
        outputs = {
            key: ops.mean(ops.stack([weights[key] for weights in outputs]), axis=0)
            for key in outputs[0]
        }
    else:
        mean = layers.get("ensemble_mean", EnsembleMean)
        outputs = mean(ops.concatenate(outputs, axis=-1))
    return keras.Model(inputs, outputs, name=name)


def rankers_of(ranker):
    """List of the rankers that one of `build_ensemble` consists of."""
    pattern = NAME.format("[0-9]+")
    parts = [layer for layer in ranker.layers if re.fullmatch(pattern, layer.name)]
    return parts or [ranker]


@keras.saving.register_keras_serializable(package="hccm_tf")
class EnsembleMean(keras.layers.Layer):
    """Probabilities `[..., K]` as they are in training, else their mean `[..., 1]`.

    The latter is its shape in a Keras graph. Like the probabilities, it is float32
    under mixed precision.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, probabilities, training=False):
        if training:
            return probabilities
        return ops.mean(probabilities, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="hccm_tf")
class EnsembleLoss(keras.losses.BinaryCrossentropy):
    """The mean log loss of K rankers; of one, `keras.losses.BinaryCrossentropy`.

    Call arguments:
        y_true: `[..., 1]`.
        y_pred: `[..., K]`.
    """

    def call(self, y_true, y_pred):
        return super().call(ops.broadcast_to(y_true, ops.shape(y_pred)), y_pred)
