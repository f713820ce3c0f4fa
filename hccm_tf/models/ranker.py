"""The ranker: features, histories and image vectors to a click probability.

It is the whole of a model without images, and the part behind the image encoder of one
with images (HCCM, Eq. 14-15). Its rows are requests of one user with N candidates, in
training as in serving, where it also has a form whose rows are impressions, over the
same layers. `[B, *]` stands for `[B]` or `[B, N]`.
"""

import functools

import keras
from keras import ops

from hccm_tf.layers import CosineSimilarity, SimilarityHistogram
from hccm_tf.models.attention import AttentionWeights, DotProductAttention
from hccm_tf.models.candidate_dense import CandidateDense
from hccm_tf.models.non_visual import NonVisual, mean_pool, products

IMAGE_INPUTS = (
    "candidate_image",
    "history_image",
    "candidate_representation",
    "history_representation",
)
SIMILARITY_LAYERS = {"cosine": CosineSimilarity, "histogram": SimilarityHistogram}


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
    attention_weights = {}
    if non_visual.history is not None:
        if model.has_attention:
            interest, weights = _item_interest(non_visual, options, layers, explain)
            candidate += interest
            attention_weights["history_attention"] = weights
        else:
            user.append(mean_pool(non_visual.history, non_visual.history_mask))
    if model.has_images:
        images = _image_inputs(model.image_dim, many_candidates, model.sides)
        inputs.update(images)
        if model.sides == ("history",):
            dim = model.image_dim
            images |= _projected_query(non_visual, images, dim, options, layers)
        if model.sides == ("candidate",):
            candidate += _candidate_image(images)
        else:
            interest, weights = _image_interest(
                images, non_visual, options, layers, explain
            )
            candidate += interest
            attention_weights.update(weights)
    name = "ranker" if model.has_images else model.name
    if explain:
        return keras.Model(inputs, attention_weights, name=name)
    # Of a schema without candidates' columns nothing tells a request's apart.
    ctr = non_visual.of_candidates(_click_probability(user, candidate, options, layers))
    return keras.Model(inputs, ctr, name=name)


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


def _image_inputs(dim, many_candidates, sides):
    candidates = (None,) if many_candidates else ()
    shapes = zip(
        IMAGE_INPUTS,
        (candidates, (None,), (*candidates, dim), (None, dim)),
        ("int32", "int32", "float32", "float32"),
        strict=True,
    )
    return {
        name: keras.Input(shape, dtype=dtype, name=name)
        for name, shape, dtype in shapes
        if name.startswith(sides)
    }


def _candidate_image(images):
    """The candidate's vector, and whether there is none."""
    vector = images["candidate_representation"]
    has_image = ops.cast(ops.not_equal(images["candidate_image"], 0), vector.dtype)
    return [vector * has_image[..., None], 1 - has_image[..., None]]


def _projected_query(non_visual, images, dim, options, layers):
    """What stands for the candidate's image where it is not seen, which is our choice.

    Its ids, as the item history's attention takes them, projected to an image's width;
    it counts as an image where the history has one.
    """
    for name, value in (
        ("image_attention", "multi_query"),
        ("similarity", "histogram"),
    ):
        if getattr(options, name) == value:
            raise ValueError(
                f"{name} {value} compares the candidate's image, which image_sides "
                "history leaves out"
            )
    if non_visual.query is None:
        raise ValueError(
            "image_sides history needs a history of a feature with embeddings, whose "
            "candidate is the query. Received: a schema without histories"
        )
    query = layers.get("image_query", functools.partial(keras.layers.Dense, dim))
    query = query(non_visual.query)
    some = ops.any(ops.not_equal(images["history_image"], 0), axis=1)
    if len(query.shape) == 3:
        some = ops.logical_and(some[:, None], ops.ones_like(query[..., 0], "bool"))
    return {
        "candidate_image": ops.cast(some, "int32"),
        "candidate_representation": query,
    }


def _image_interest(images, non_visual, options, layers, explain):
    """x_v of Eq. 14 and its options, 0 where the candidate has no image."""
    candidate, history, query, keys = (images[name] for name in IMAGE_INPUTS)
    mask = ops.not_equal(history, 0)
    has_image = ops.cast(ops.not_equal(candidate, 0), query.dtype)[..., None]
    make = {
        "din": options.din_attention,
        "dot_product": DotProductAttention,
        "multi_query": options.multi_query_attention,
    }[options.image_attention]
    attention = layers.get("image_attention", make)
    queries = {"query": query}
    if options.image_attention == "multi_query":
        queries["id_query"] = _id_query(non_visual.candidate_ids)
    if explain:
        units = _attention_units(attention, **queries)
        weights = {name: AttentionWeights(u)(q, keys, mask) for name, u, q in units}
        return [], {name: weight * has_image for name, weight in weights.items()}
    interest = attention(
        **queries, keys=keys, keys_mask=mask, query_mask=non_visual.candidate_mask
    )
    features = [interest]
    if options.products:
        features += products(query, interest, keys, mask)
    if options.similarity != "none":
        make = SIMILARITY_LAYERS[options.similarity]
        similarity = layers.get("image_similarity", make)
        features.append(similarity(query, keys, mask))
    return [feature * has_image for feature in features] + [1 - has_image], {}


def _id_query(ids):
    """The candidate's ids as a query; all of them, which is our choice."""
    if not ids:
        raise ValueError(
            "image_attention multi_query needs a feature of the candidate with an "
            "embedding. Received: none"
        )
    return ops.concatenate(ids, axis=-1)


def _attention_units(attention, query, id_query=None):
    """Name of the weights, unit and query of each attention over the images."""
    if id_query is None:
        return [("image_attention", attention, query)]
    id_query = attention.project(id_query)
    return [
        ("image_attention", attention.by_image, query),
        ("image_attention_by_ids", attention.by_ids, id_query),
    ]


def _click_probability(user, candidate, options, layers):
    """The final MLP (Eq. 4 and 15): concatenation → hidden units → probability."""
    x = [ops.concatenate(side, axis=-1) for side in (candidate, user) if side]
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
