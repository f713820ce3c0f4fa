"""The images' part of the ranker: what they say of a candidate (HCCM, Eq. 14)."""

import functools

import keras
from keras import ops

from hccm_tf.layers import CosineSimilarity, SimilarityHistogram
from hccm_tf.models.attention import AttentionWeights, DotProductAttention
from hccm_tf.models.match_share import OOV
from hccm_tf.models.non_visual import products

IMAGE_INPUTS = (
    "candidate_image",
    "history_image",
    "candidate_representation",
    "history_representation",
)


def image_inputs(dim, many_candidates, sides):
    """Those of `IMAGE_INPUTS` that are of the sides; name → `keras.Input`."""
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


def candidate_image(images):
    """The candidate's vector, and whether there is none."""
    vector = images["candidate_representation"]
    has_image = ops.cast(ops.not_equal(images["candidate_image"], 0), vector.dtype)
    return [vector * has_image[..., None], 1 - has_image[..., None]]


def projected_query(non_visual, images, dim, options, layers):
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


def image_interest(images, non_visual, options, layers, explain):
    """What images say of a candidate, 0 where it has none.

    Returns:
        `(interest, similarities, weights)`: x_v of Eq. 14 with its products, and that
        there is no image, list of tensors `[B, *, ·]`; another of similarities; with
        `explain` a dict of the attentions' weights instead.
    """
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
        return [], [], {name: w * has_image for name, w in weights.items()}
    interest = attention(
        **queries, keys=keys, keys_mask=mask, query_mask=non_visual.candidate_mask
    )
    features = [interest]
    if options.products:
        features += products(query, interest, keys, mask)
    features = [feature * has_image for feature in features] + [1 - has_image]
    if options.similarity == "none":
        return features, [], {}
    found = _similarities(query, keys, mask, non_visual, options, layers)
    return features, [similarity * has_image for similarity in found], {}


def _similarities(query, keys, mask, non_visual, options, layers):
    """What the candidate's similarity to the history's images gives, list of tensors.

    Args:
        query: `[B, *, D]`.
        keys: `[B, T, D]`.
        mask: bool `[B, T]`.
        non_visual: `NonVisual`.
        options: `ImageHistoryOptions`.
        layers: `LayerPool`.
    """
    histogram = options.similarity == "histogram"
    make = SimilarityHistogram if histogram else CosineSimilarity
    similarity = layers.get("image_similarity", make)
    similarities = [similarity(query, keys, mask)]
    if options.similarity == "category_cosine":
        same = ops.logical_and(same_category(non_visual.inputs), mask[:, None])
        similarities.append(similarity(query, keys, same))
    return similarities


def same_category(inputs):
    """Which clicks are of the category of a candidate: bool `[B, N, T]`, or N is 1."""
    names = "category", "history_category"
    if not set(names) <= set(inputs):
        raise ValueError(
            f"similarity category_cosine needs {' and '.join(names)}. Received: a "
            f"schema of {', '.join(inputs)}"
        )
    category, clicks = (inputs[name] for name in names)
    if len(category.shape) == 1:
        category = category[:, None]
    same = ops.equal(category[:, :, None], clicks[:, None])
    # What is unknown has nothing in common.
    return ops.logical_and(same, ops.greater(clicks, OOV)[:, None])


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
