"""What all models do with features that are no images (HCCM, Eq. 1-4)."""

import functools

import keras
import numpy as np
from keras import ops

from hccm_tf.errors import InputError
from hccm_tf.layers import Embedding, IdDropout
from hccm_tf.models.column_input import column_input
from hccm_tf.models.match_share import match_share


class NonVisual:
    """Inputs and embeddings of a schema's features.

    Each row is an impression or, with `many_candidates`, a request: one user and N
    candidates. `[B, *]` stands for `[B]` or `[B, N]`.

    Args:
        model: `hccm_tf.models.model.Model`.
        layers: `LayerPool`.
        many_candidates: whether the candidates' inputs are `[B, N]`.

    Attributes:
        inputs: `input_name` → `keras.Input`, `[B]` for users and context, `[B, *]` for
            candidates, `[B, T]` for sequences and, with N candidates, bool `[B, N]`
            for `candidate_mask`.
        candidate_mask: the last of these, else `None`.
        user: list of tensors `[B, ·]`: embedded or float scalars of user and context.
        candidate: list of tensors `[B, *, ·]`: those of the candidate.
        candidate_ids: the embedded ones among these.
        query: `[B, *, D]`, the candidate's embeddings of what the histories hold;
            `None` without histories.
        history: `[B, T, D]`, the same of each click.
        history_mask: bool `[B, T]`, true at clicks.
    """

    def __init__(self, model, layers, many_candidates=False):
        schema = model.schema
        self._sequences, self._values = schema.sequences, {}
        self.inputs, self.user, self.candidate = {}, [], []
        self.candidate_ids, self.candidate_mask = [], None
        if many_candidates:
            mask = keras.Input((None,), dtype="bool", name="candidate_mask")
            self.inputs["candidate_mask"] = self.candidate_mask = mask
        tables, embedded = {}, {}
        for feature in schema.scalars:
            shape = (None,) if feature.candidate and many_candidates else ()
            value = column_input(feature, shape)
            self.inputs[feature.input_name] = value
            side = self.candidate if feature.candidate else self.user
            if not feature.is_embedded:
                side.append(ops.expand_dims(value, -1))
                continue
            tables[feature.name] = _embedding(model, feature, layers)
            self._values[feature.name] = value
            embedded[feature.name] = tables[feature.name](value)
            side.append(embedded[feature.name])
            if feature.candidate:
                self.candidate_ids.append(embedded[feature.name])
        query, history, mask = [], [], None
        for feature in schema.sequences:
            value = column_input(feature, (None,))
            self.inputs[feature.input_name] = value
            history.append(tables[feature.shares](value))
            query.append(self.of_candidates(embedded[feature.shares]))
            mask = ops.not_equal(value, 0) if mask is None else mask
        self.query = self.history = self.history_mask = None
        if history:
            self.query = ops.concatenate(query, axis=-1)
            self.history = ops.concatenate(history, axis=-1)
            self.history_mask = mask

    def match_shares(self):
        """`match_share` of each history, list of float tensors `[B, *, 1]`."""
        shares = []
        for feature in self._sequences:
            value = self.of_candidates(self._values[feature.shares][..., None])[..., 0]
            share = match_share(value, self.inputs[feature.input_name])
            shares.append(share[..., None])
        return shares

    def of_candidates(self, values):
        """`[B, *, D]`, also of values that a request's candidates share, `[B, D]`."""
        if self.candidate_mask is None or len(values.shape) == 3:
            return values
        ones = ops.ones_like(self.candidate_mask, dtype=values.dtype)
        return values[:, None] * ones[..., None]


def _embedding(model, feature, layers):
    """Function from indices to embeddings, with dropout where ids can be unknown."""
    make = functools.partial(
        Embedding,
        model.schema.num_rows(feature.name),
        feature.embedding_dim or model.options.embedding_dim,
        shards=model.embedding_shards,
    )
    table = layers.get(embedding_name(feature), make)
    dropout = id_dropout(model, feature, layers, f"{feature.input_name}_dropout")
    return lambda ids: table(dropout(ids))


def embedding_name(feature):
    """Name of the layer that is a feature's embedding table."""
    return f"{feature.input_name}_embedding"


def id_dropout(model, feature, layers, name):
    """`IdDropout` at the rates that the option of this name describes.

    Those of a vocabulary's values go by how often each of them occurs in training, that
    of an integer's, which are not counted one by one, by their mean.
    """
    strength = model.options.id_dropout
    if not (strength and feature.has_unknown_row):
        return layers.get(name, functools.partial(IdDropout, 0.0))
    counts = model.schema.counts.get(feature.name)
    if counts is not None:
        # Padding and unknown values come first, and are no values.
        first = feature.num_rows - len(counts)
        rates = np.pad(strength / (strength + counts), (first, 0))
        return layers.get(name, functools.partial(_dropout_by_id, rates))
    if feature.frequency is None:
        raise InputError(
            f"schema: feature {feature.name} has no frequency, which id_dropout "
            "needs; build the examples again"
        )
    rate = strength / (strength + feature.frequency)
    return layers.get(name, functools.partial(IdDropout, rate))


def _dropout_by_id(rates, name):
    """`IdDropout` in which each id has a rate of its own."""
    layer = IdDropout(0.0, num_ids=len(rates), name=name)
    layer.build((None,))
    layer.rates.assign(rates)
    return layer


def mean_pool(history, mask):
    """Mean `[B, D]` of the non-masked positions of `[B, T, D]`, 0 if there is none."""
    mask = ops.cast(mask, history.dtype)
    count = ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1)
    return ops.einsum("bt,btd->bd", mask, history) / count


def products(query, interest, history, mask):
    """`query * interest` for each interest `[B, *, D]`, `query * mean_pool(history)`.

    Args:
        query: `[B, *, D]`.
        interest: `[B, *, D]`, or several side by side.
        history: `[B, T, D]`.
        mask: bool `[B, T]`.
    """
    mean = mean_pool(history, mask)
    if len(query.shape) == 3:
        mean = mean[:, None]
    interests = ops.split(interest, interest.shape[-1] // query.shape[-1], axis=-1)
    return [query * part for part in [*interests, mean]]
