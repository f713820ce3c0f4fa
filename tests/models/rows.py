"""The same impressions in other rows."""

import numpy as np

from tests.models.batches import BATCH, SCHEMA

OF_CANDIDATES = {f.name for f in SCHEMA.scalars if f.candidate}
OF_CANDIDATES |= {"candidate_mask", "candidate_image", "candidate_representation"}
OF_IMAGES = {"image_map", "image_category"}


def impressions(inputs):
    """Rows of one impression each, with its request's user and history.

    Args:
        inputs: of requests; what is of images stays as it is.
    """
    mask = inputs["candidate_mask"]
    request = np.nonzero(mask)[0]
    rows = {
        name: value
        if name in OF_IMAGES
        else value[mask if name in OF_CANDIDATES else request]
        for name, value in inputs.items()
    }
    del rows["candidate_mask"]
    return rows


def single_requests(inputs):
    """Those rows as requests of one candidate."""
    rows = {
        name: value[:, None] if name in OF_CANDIDATES else value
        for name, value in impressions(inputs).items()
    }
    count = inputs["candidate_mask"].sum()
    return {**rows, "candidate_mask": np.ones((count, 1), bool)}


def of_each_candidate(inputs, users):
    """Requests of some impressions' users, each with the candidates of all.

    Args:
        inputs: of `impressions`.
        users: list of numbers of impressions.

    Returns:
        `(requests, rows)`: what `rank` takes, and for each user what `ranker` does.
    """
    requests = {
        name: np.stack([value] * len(users)) if name in OF_CANDIDATES else value[users]
        for name, value in inputs.items()
    }
    requests["candidate_mask"] = np.ones((len(users), BATCH), bool)
    rows = [
        {
            name: value if name in OF_CANDIDATES else np.stack([value[user]] * BATCH)
            for name, value in inputs.items()
        }
        for user in users
    ]
    return requests, rows
