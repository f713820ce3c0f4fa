"""How many candidates a record holds at most, chosen once for a data folder."""

import collections
import json

import numpy as np

from hccm_tf.preparation.examples.job import write_json
from hccm_tf.preparation.examples.log_values import ALL_SPLITS, SPLITS
from hccm_tf.preparation.examples.requests import NO_REQUEST, sizes

# What a history costs in training, in candidates.
HISTORY_COST = 4


def cheapest_cut(counts):
    """The number of candidates at which requests are cut so that training is cheapest.

    A record of a batch costs its history and N candidates, be they padding or not:
    N minimises Σ ⌈n / N⌉ (4 + N) over the requests' sizes n. The smallest N of those
    that are equal.

    Args:
        counts: dict, size of a request → number of such requests, not empty.
    """
    number = sum(counts.values())
    impressions = sum(size * count for size, count in counts.items())
    # Larger ones cost more than single impressions do, whatever the sizes are.
    most = (HISTORY_COST + 1) * impressions // number - HISTORY_COST
    width = np.arange(1, min(most, max(counts)) + 1)
    records = np.zeros(len(width), np.int64)
    for size, count in counts.items():
        records += -(-size // width) * count
    return int(width[np.argmin(records * (HISTORY_COST + width))])


def count_sizes(job, shard, loaded):
    """Leaves `requests/<shard>.json`: split → list of `[size, number of requests]`."""
    found = {}
    for name in SPLITS if loaded is not None else ():
        inside = loaded.split == ALL_SPLITS.index(name)
        size = sizes(np.where(inside, loaded.request, NO_REQUEST))
        found[name] = np.stack(np.unique(size, return_counts=True), axis=1).tolist()
    write_json(job.work / "requests" / f"{shard:05d}.json", found)


def choose(job, _):
    """Step after the count: leaves `max_candidates.json`.

    The training split's requests choose, or those that there are.
    """
    counts = {name: collections.Counter() for name in SPLITS}
    for path in sorted((job.work / "requests").glob("*.json")):
        for name, found in json.loads(path.read_text()).items():
            for size, count in found:
                counts[name][size] += count
    chosen = counts["train"] or sum(counts.values(), collections.Counter())
    found = cheapest_cut(chosen) if chosen else 1
    write_json(job.work / "max_candidates.json", found)


def max_candidates(job):
    """What `choose` left."""
    return json.loads((job.work / "max_candidates.json").read_text())
