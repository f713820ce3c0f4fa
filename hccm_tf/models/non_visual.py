"""What all models do with features that are no images (HCCM, Eq. 1-4)."""

import keras
from keras import ops

from hccm_tf.errors import InputError
from hccm_tf.layers import Embedding, IdDropout


class NonVisual:
    """Inputs and embeddings of a schema's features.

    Args:
        schema: `hccm_tf.features.Schema`.
        options: `ModelOptions`.

    Attributes:
        inputs: name → `keras.Input`, `[B]` for scalars and `[B, T]` for sequences.
        features: list of tensors `[B, ·]`: every embedded or float scalar.
        candidate: `[B, D]`, the candidate's embeddings of what the histories hold;
            `None` without histories.
        history: `[B, T, D]`, the same of each click.
        history_mask: bool `[B, T]`, true at clicks.
    """

    def __init__(self, schema, options):
        self.inputs, self.features = {}, []
        tables, embedded = {}, {}
        for feature in schema.scalars:
            dtype = "float32" if feature.kind == "float" else "int32"
            value = keras.Input((), dtype=dtype, name=feature.name)
            self.inputs[feature.name] = value
            if feature.kind == "float":
                self.features.append(ops.expand_dims(value, -1))
                continue
            name = f"{feature.name}_embedding"
            tables[feature.name] = _embedding(schema, feature, options, name)
            embedded[feature.name] = tables[feature.name](value)
            self.features.append(embedded[feature.name])
        candidate, history, mask = [], [], None
        for feature in schema.sequences:
            value = keras.Input((None,), dtype="int32", name=feature.name)
            self.inputs[feature.name] = value
            history.append(tables[feature.shares](value))
            candidate.append(embedded[feature.shares])
            mask = ops.not_equal(value, 0) if mask is None else mask
        self.candidate = self.history = self.history_mask = None
        if history:
            self.candidate = ops.concatenate(candidate, axis=-1)
            self.history = ops.concatenate(history, axis=-1)
            self.history_mask = mask


def _embedding(schema, feature, options, name):
    """Function from indices to embeddings, with dropout where ids can be unknown."""
    table = Embedding(
        schema.num_rows(feature.name),
        feature.embedding_dim or options.embedding_dim,
        name=name,
    )
    dropout = id_dropout(feature, options, f"{feature.name}_dropout")
    return lambda ids: table(dropout(ids))


def id_dropout(feature, options, name):
    """`IdDropout` at the rate that `ModelOptions` describes."""
    rate = 0.0
    # A hash has no out-of-vocabulary row.
    if options.id_dropout and feature.kind != "hash":
        if feature.frequency is None:
            raise InputError(
                f"schema: feature {feature.name} has no frequency, which id_dropout "
                "needs; build the examples again"
            )
        rate = options.id_dropout / (options.id_dropout + feature.frequency)
    return IdDropout(rate, name=name)


def mean_pool(history, mask):
    """Mean `[B, D]` of the non-masked positions of `[B, T, D]`, 0 if there is none."""
    mask = ops.cast(mask, history.dtype)
    count = ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1)
    return ops.einsum("bt,btd->bd", mask, history) / count


def din_interest(non_visual, options):
    """DIN's attention over the item history, with its products as an option."""
    query, keys = non_visual.candidate, non_visual.history
    if keys is None:
        return []
    mask = non_visual.history_mask
    attention = options.din_attention("history_attention")
    interest = attention(query, keys, keys_mask=mask)
    if not options.products:
        return [interest]
    return [interest, query * interest, query * mean_pool(keys, mask)]


def click_probability(features, options):
    """The final MLP (Eq. 4 and 15): concatenation → hidden units → probability."""
    x = ops.concatenate(features, axis=-1)
    for index, units in enumerate(options.hidden_units):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden_{index}")(x)
        if options.dropout:
            x = keras.layers.Dropout(options.dropout)(x)
    # Probabilities stay float32 under mixed precision.
    return keras.layers.Dense(1, activation="sigmoid", dtype="float32", name="ctr")(x)
