"""A small shop that shows several items at a time."""

import numpy as np

from tests.reference import histories
from tfrecords_tools.demo.shop import make_impressions, make_items

MAX_HISTORY = 8
MOMENT = ["user_id", "timestamp"]


def make_requests(seed=0):
    """A catalogue and a log of moments with 1 to 5 items.

    Returns:
        `(items, log)`: what `build_examples` takes; beside what the demo shop has, each
        impression has a `position` in its request and a `weight`, and the column
        `history` has the rows of the log that its request's history holds.
    """
    rng = np.random.default_rng(seed)
    items = make_items(60, rng)
    log = make_impressions(items, 20, 1500, rng, request_size=5).drop(columns="ctr")
    items = items[["item_id", "image", "category", "price"]]
    items.loc[items.index[:5], "image"] = ""
    log = log.sample(frac=0.7, random_state=1).sort_index(ignore_index=True)
    log["position"] = log.groupby(MOMENT).cumcount()
    log["weight"] = rng.choice([0.0, 0.5, 2.0], len(log))
    return items, log.assign(history=histories(log, MAX_HISTORY))
