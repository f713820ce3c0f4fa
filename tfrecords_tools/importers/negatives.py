"""Negatives for logs that hold clicks only: items a user never clicked."""

import numpy as np
import pandas as pd

from hccm_tf.errors import InputError

# Rounds of drawing again before a user's unclicked items are listed instead.
ROUNDS = 32


def user_item_keys(users, items):
    """One 64-bit key for each (user, item) pair.

    Two pairs may share a key. Then an item may be refused that could have been a
    negative, but a clicked item never becomes one.

    Args:
        users: uint64 `[N]` or `[1]`, of `hash_ids`.
        items: uint64 `[N]`, of `hash_ids`.

    Returns:
        uint64 `[N]`.
    """
    # An odd multiplier (2**64 / golden ratio): the pair is not symmetric.
    return users * np.uint64(0x9E3779B97F4A7C15) + items


def hash_ids(ids):
    """Hashes ids to 64 bits.

    Args:
        ids: int64 array `[N]`, or object array of strings.

    Returns:
        uint64 `[N]`.
    """
    return pd.util.hash_array(ids, categorize=False)


def _contains(sorted_keys, keys):
    place = np.searchsorted(sorted_keys, keys)
    return sorted_keys[np.minimum(place, len(sorted_keys) - 1)] == keys


def draw_impressions(users, items, clicked, catalogue, negatives, rng):
    """Sets negatives beside each click, uniform over what its user never clicked.

    Args:
        users: uint64 `[N]`, the clicks' users, of `hash_ids`.
        items: int64 `[N]`, the clicked items as rows of the catalogue.
        clicked: uint64 `[C]`, sorted: `user_item_keys` of every click of every split.
        catalogue: uint64 `[I]`, all items, of `hash_ids`.
        negatives: number for each click, drawn with replacement.
        rng: `numpy.random.Generator`.

    Returns:
        `(items, labels)`: int64 `[N * (1 + negatives)]`, each click (label 1)
        followed by its negatives (label 0).

    Raises:
        InputError: if a user clicked every item.
    """
    owner = np.repeat(users, negatives)
    drawn = rng.integers(len(catalogue), size=len(owner))
    again = np.arange(len(owner))
    for _ in range(ROUNDS):
        keys = user_item_keys(owner[again], catalogue[drawn[again]])
        again = again[_contains(clicked, keys)]
        drawn[again] = rng.integers(len(catalogue), size=len(again))
    for user in np.unique(owner[again])[:, None]:
        free = np.flatnonzero(~_contains(clicked, user_item_keys(user, catalogue)))
        if not len(free):
            raise InputError(
                f"negatives: a user clicked each of the {len(catalogue)} items, so "
                f"there is no negative; give 0. Received: {negatives}"
            )
        rows = again[owner[again] == user]
        drawn[rows] = rng.choice(free, len(rows))
    rows = np.column_stack([items, drawn.reshape(len(users), negatives)])
    labels = np.zeros(rows.shape, np.int64)
    labels[:, 0] = 1
    return rows.ravel(), labels.ravel()
