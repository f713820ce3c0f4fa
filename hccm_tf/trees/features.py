"""What the trees see of an impression: matches, similarities, numbers, categories.

For each history of the schema, the share of its clicks that have the candidate's value;
the number of clicks; the numbers of user, context and candidate as they are; their
categories as indices, which become click rates, see `hccm_tf.trees.fit`; and of images,
cosines of pooled maps. Counts of matches are not there: they shift where histories are
longer in training than in test, shares less.
"""

import dataclasses

import numpy as np
import pandas as pd
from keras import ops

from hccm_tf.layers import CosineSimilarity
from hccm_tf.layers.cosine_similarity import cosines
from hccm_tf.models.image_interest import same_category
from hccm_tf.models.match_share import match_share
from hccm_tf.progress import advance, progress

COSINES = ("mean", "maximum", "soft maximum", "with the mean")
# What `Trees.Options.similarity` adds to the numbers.
SIMILARITIES = {
    "none": (),
    "cosine": COSINES,
    "category_cosine": (*COSINES, *(f"{name}, same category" for name in COSINES[:3])),
}
ROW_COLUMNS = ("row", "user_key", "label", "weight")


@dataclasses.dataclass(frozen=True)
class Table:
    """Impressions with their features.

    Args:
        rows: data frame `row, user_key, label, weight`, see `hccm_tf.data.dataset`.
        numbers: float32 `[N, F]`, of `number_names`.
        categories: int32 `[N, C]`, of `category_names`.
        sizes: tuple of the numbers of rows that the categories' indices are of.
    """

    rows: pd.DataFrame
    numbers: np.ndarray
    categories: np.ndarray
    sizes: tuple


def number_names(schema, similarity):
    """Names of the columns of `Table.numbers`, list of str."""
    matches = [f"share of {feature.name}" for feature in schema.sequences]
    length = ["history length"] if schema.sequences else []
    images = [f"cosine, {name}" for name in SIMILARITIES[similarity]]
    return [*matches, *length, *images, *(f.name for f in schema.scalars if f.is_float)]


def category_names(schema):
    """Names of the columns of `Table.categories`, list of str."""
    return [feature.name for feature in schema.scalars if feature.is_embedded]


def read_table(batches, split, limit=None, epoch=None, similarity="none"):
    """The features of a split's impressions.

    Args:
        batches: `hccm_tf.data.dataset.Batches`, with `PooledMaps` for cosines.
        split: its name.
        limit: after about how many impressions to stop; `None` reads all.
        epoch: int, to read the requests in a random order; `None` keeps the data's.
        similarity: of `SIMILARITIES`, what is read of images.

    Returns:
        `Table`.
    """
    dataset = batches.dataset(split, epoch)
    count = batches.folder.num_impressions(split)
    if limit is not None and limit < count:
        dataset, count = dataset.take(-(-limit // batches.batch_size)), limit
    parts = []
    with progress(f"reading {split}", count, "impression"):
        for batch in dataset:
            parts.append(_features(batches.schema, batch, similarity))
            advance(len(parts[-1][0]["row"]))
    rows, numbers, categories = zip(*parts, strict=True)
    return Table(
        pd.concat(map(pd.DataFrame, rows), ignore_index=True),
        np.concatenate(numbers),
        np.concatenate(categories),
        tuple(batches.schema.num_rows(n) for n in category_names(batches.schema)),
    )


def _features(schema, batch, similarity):
    """Columns of the rows, numbers and categories of a batch's impressions."""
    inputs, label, weight, keys = batch
    inputs = {name: value.numpy() for name, value in inputs.items()}
    mask = inputs["candidate_mask"]

    def of_impressions(values):
        values = values if values.ndim > 1 else values[:, None]
        return np.broadcast_to(values, mask.shape)[mask]

    numbers = []
    for feature in schema.sequences:
        candidate = inputs[schema[feature.shares].input_name]
        candidate = candidate if candidate.ndim > 1 else candidate[:, None]
        share = match_share(candidate, inputs[feature.input_name])
        numbers.append(of_impressions(ops.convert_to_numpy(share)))
    if schema.sequences:
        clicks = inputs[schema.sequences[0].input_name] > 0
        numbers.append(of_impressions(clicks.sum(axis=1)))
    if similarity != "none":
        same = same_category(inputs) if similarity == "category_cosine" else None
        found = image_cosines(
            inputs["image_map"],
            inputs["candidate_image"],
            inputs["history_image"],
            same,
        )
        numbers += list(found[mask].T)
    scalars = schema.scalars
    numbers += [of_impressions(inputs[f.input_name]) for f in scalars if f.is_float]
    categories = [
        of_impressions(inputs[f.input_name]) for f in scalars if f.is_embedded
    ]
    columns = (keys["row"], keys["user_key"], label[..., 0], weight)
    rows = [of_impressions(column.numpy()) for column in columns]
    return (
        dict(zip(ROW_COLUMNS, rows, strict=True)),
        _stacked(numbers, np.float32, mask),
        _stacked(categories, np.int32, mask),
    )


def _stacked(columns, dtype, mask):
    result = np.empty((mask.sum(), len(columns)), dtype)
    for place, column in enumerate(columns):
        result[:, place] = column
    return result


def image_cosines(vectors, candidate_image, history_image, same=None):
    """How similar candidates' images are to those of a history.

    Mean, maximum and soft maximum of the cosines, see
    `hccm_tf.layers.CosineSimilarity`, and the cosine with the mean of the clicks'
    vectors. All are 0 without an image on either side.

    Args:
        vectors: float32 `[U, c]`, whose row 0 is no image.
        candidate_image: int `[R, N]`, rows of it.
        history_image: int `[R, T]`, likewise.
        same: bool `[R, N, T]`, which clicks are of a candidate's category,
            to have the first three of these as well.

    Returns:
        float32 `[R, N, 4]`, or `[R, N, 7]`.
    """
    query, keys = vectors[candidate_image], vectors[history_image]
    mask, similarity = history_image > 0, CosineSimilarity()
    found = [similarity(query=query, keys=keys, keys_mask=mask)]
    # Rows of no image are zeros, and a cosine does not see by what a sum is divided.
    mean = keys.sum(axis=1, keepdims=True)
    with_mean, _ = cosines(query, mean)
    found.append(with_mean)
    if same is not None:
        same = ops.logical_and(same, mask[:, None])
        found.append(similarity(query=query, keys=keys, keys_mask=same))
    return ops.convert_to_numpy(ops.concatenate(found, axis=-1))
