"""Several rankers as one: each learns for itself, and the mean of them answers."""

import keras
from keras import ops

from hccm_tf.models.ranker import build_ranker


def build_ensemble(model, layers, many_candidates=False, explain=False):
    """Builds the `ensemble_size` rankers of a model's options as one ranker.

    Each has embeddings, attention and MLP of its own; the images' vectors are shared.
    In training its output is every ranker's click probability, `[B, *, K]`, for
    `EnsembleLoss`: a loss of their mean would let them lean on each other. Otherwise it
    is their mean, `[B, *, 1]`. (B. Lakshminarayanan et al., NeurIPS 2017,
    https://arxiv.org/abs/1612.01474; a part that is shared, and one training for all,
    as in TabM, ICLR 2025, https://arxiv.org/abs/2410.24210.)

    Args:
        model: `hccm_tf.models.model.Model`.
        layers: `LayerPool`; a second ranker from the same pool has the same weights.
        many_candidates: whether a row has N candidates.
        explain: whether the outputs are the attentions' mean weights instead.

    Returns:
        `keras.Model` as `build_ranker` returns it.
    """
    size = model.options.ensemble_size
    if size == 1:
        return build_ranker(model, layers, many_candidates, explain)
    rankers = [
        build_ranker(model, layers.part(name), many_candidates, explain, name)
        for name in (f"ranker_{number}" for number in range(size))
    ]
    inputs = rankers[0].input
    outputs = [ranker(inputs) for ranker in rankers]
    if explain:
        outputs = {
            name: ops.mean(ops.stack([weights[name] for weights in outputs]), axis=0)
            for name in outputs[0]
        }
    else:
        mean = layers.get("ensemble_mean", EnsembleMean)
        outputs = mean(ops.concatenate(outputs, axis=-1))
    return keras.Model(
        inputs, outputs, name="ranker" if model.has_images else model.name
    )


def rankers_of(ranker):
    """List of the rankers that one of `build_ensemble` consists of."""
    parts = [layer for layer in ranker.layers if isinstance(layer, keras.Model)]
    return parts or [ranker]


@keras.saving.register_keras_serializable(package="hccm_tf")
class EnsembleMean(keras.layers.Layer):
    """Probabilities `[..., K]` as they are in training, else their mean `[..., 1]`."""

    def call(self, probabilities, training=False):
        if training:
            return probabilities
        return ops.mean(probabilities, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="hccm_tf")
class EnsembleLoss(keras.losses.BinaryCrossentropy):
    """The mean log loss of K rankers; of one, `keras.losses.BinaryCrossentropy`.

    Args:
        as of `keras.losses.BinaryCrossentropy`.

    Call arguments:
        y_true: `[..., 1]`.
        y_pred: `[..., K]`.
    """

    def call(self, y_true, y_pred):
        return super().call(ops.broadcast_to(y_true, ops.shape(y_pred)), y_pred)
