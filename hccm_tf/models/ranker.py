"""The ranker: features, histories and image vectors to a click probability.

It is the whole of a model without images, and the part behind the image encoder of one
with images (HCCM, Eq. 14-15). Its rows are requests of one user with N candidates, in
training as in serving, where it also has a form whose rows are impressions, over the
same layers. `[B, *]` stands for `[B]` or `[B, N]`.
"""

import functools

import keras
from keras import ops

from hccm_tf.layers.batch_normalization import BatchNormalization
from hccm_tf.models.attention import AttentionWeights
from hccm_tf.models.candidate_dense import CandidateDense
from hccm_tf.models.image_interest import (
    candidate_image,
    image_inputs,
    image_interest,
    projected_query,
)
from hccm_tf.models.non_visual import NonVisual, mean_pool, products

MOMENTUM = 0.9


def build_ranker(model, layers, many_candidates=False, explain=False):
    """Builds a ranker.

    With N candidates, an input is `candidate_mask [B, N]`, true where there is one:
    what is none leaves no trace in statistics, and its probability means nothing.

    With images its inputs are also `candidate_representation [B, *, D]`,
    `history_representation [B, T, D]`, and `candidate_image [B, *]` and `history_image
    [B, T]`, of which only counts whether they are 0: no image. A model that sees the
    images of one side only has no inputs for those of the other.

    Args:
        model: `hccm_tf.models.model.Model`.
        layers: `LayerPool`; a second ranker from the same pool has the same weights.
        many_candidates: whether a row has N candidates.
        explain: whether the outputs are the attentions' weights instead.

    Returns:
        `keras.Model` to the click probability `[B, 1]`, or `[B, N, 1]`; with `explain`
        to a dict of `history_attention` and `image_attention`, `[B, T]` each, where
        the model has them. Of `multi_query`, `image_attention` has the weights for the
        candidate's image, and `image_attention_by_ids` those for its ids.
    """
    options = model.options
    non_visual = NonVisual(model, layers, many_candidates)
    inputs = dict(non_visual.inputs)
    user, candidate = list(non_visual.user), list(non_visual.candidate)
    attention_weights, similarities = {}, []
    if options.match_shares:
        # As they are: on the scale of the training split, those of longer histories
        # would be others.
        candidate += non_visual.match_shares()
    if non_visual.history is not None:
        if model.has_attention:
            interest, weights = _item_interest(non_visual, options, layers, explain)
            candidate += interest
            attention_weights["history_attention"] = weights
        else:
            user.append(mean_pool(non_visual.history, non_visual.history_mask))
    if model.has_images:
        images = image_inputs(model.image_dim, many_candidates, model.sides)
        inputs.update(images)
        if model.sides == ("history",):
            dim = model.image_dim
            images |= projected_query(non_visual, images, dim, options, layers)
        if model.sides == ("candidate",):
            candidate += candidate_image(images)
        else:
            interest, similarities, weights = image_interest(
                images, non_visual, options, layers, explain
            )
            candidate += interest
            attention_weights.update(weights)
    name = "ranker" if model.has_images else model.name
    if explain:
        return keras.Model(inputs, attention_weights, name=name)
    if similarities:
        similarities = [_normalized(similarities, non_visual.candidate_mask, layers)]
    ctr = _click_probability(user, candidate, similarities, options, layers)
    # Of a schema without candidates' columns nothing tells a request's apart.
    return keras.Model(inputs, non_visual.of_candidates(ctr), name=name)


def _item_interest(non_visual, options, layers, explain):
    """DIN's attention over the item history, with its products as an option."""
    query, keys, mask = non_visual.query, non_visual.history, non_visual.history_mask
    attention = layers.get("history_attention", options.din_attention)
    if explain:
        return [], AttentionWeights(attention)(query, keys, mask)
    interest = attention(
        query, keys, keys_mask=mask, query_mask=non_visual.candidate_mask
    )
    if not options.products:
        return [interest], None
    return [interest, *products(query, interest, keys, mask)], None


def _normalized(features, mask, layers):
    """Features of few values `[B, *, ·]`, side by side, on the scale of the batch."""
    make = functools.partial(BatchNormalization, momentum=MOMENTUM)
    normalize = layers.get("similarity_normalization", make)
    return normalize(ops.concatenate(features, axis=-1), mask=mask)


def _click_probability(user, candidate, similarities, options, layers):
    """The final MLP (Eq. 4 and 15): concatenation → hidden units → probability.

    Args:
        user: list of tensors `[B, ·]`.
        candidate: list of tensors `[B, *, ·]`.
        similarities: likewise, which no dropout hides.
        options: `NetworkOptions`.
        layers: `LayerPool`.
    """

    def hidden(name, side):
        if not (side and options.input_dropout):
            return side
        make = functools.partial(keras.layers.Dropout, options.input_dropout)
        return [layers.get(f"dropout_{name}", make)(ops.concatenate(side, axis=-1))]

    sides = [*hidden("candidate", candidate), *similarities], hidden("user", user)
    x = [ops.concatenate(side, axis=-1) for side in sides if side]
    for index, units in enumerate(options.hidden_units):
        kind = keras.layers.Dense if index else CandidateDense
        make = functools.partial(kind, units, activation="relu")
        x = [layers.get(f"hidden_{index}", make)(*x)]
        if options.dropout:
            make = functools.partial(keras.layers.Dropout, options.dropout)
            x = [layers.get(f"dropout_{index}", make)(*x)]
    # Probabilities stay float32 under mixed precision.
    make = functools.partial(
        keras.layers.Dense, 1, activation="sigmoid", dtype="float32"
    )
    return layers.get("ctr", make)(*x)
