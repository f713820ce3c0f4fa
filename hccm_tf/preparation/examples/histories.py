"""Point-in-time histories: what a user had clicked before an impression."""

import numpy as np


def point_in_time(
    click_users, click_times, users, times, max_history, click_fractions=None
):
    """Finds each impression's history among the clicks.

    A history holds the user's clicks STRICTLY before the impression's second, newest
    `max_history` of them, oldest first: a click of the same second may be the
    impression's own future.

    Args:
        click_users: int64 `[C]`.
        click_times: int64 `[C]`, seconds.
        users: int64 `[N]`, the impressions' users.
        times: int64 `[N]`, seconds, of a request the earliest.
        max_history: int.
        click_fractions: `[C]`, the order of clicks within a second; `None` for the
            order given.

    Returns:
        `(order, begin, end)`: the clicks in the order of user and time (ties in the
        order given), and for each impression the slice of `order` that is its
        history, int64 `[N]` each.
    """
    # User and time as one sortable number, from ranks so that it cannot overflow.
    moments = np.unique(np.concatenate([click_times, times]))
    people = np.unique(np.concatenate([click_users, users]))

    def composite(user, time):
        rank = np.searchsorted(people, user) * (len(moments) + 1)
        return rank + np.searchsorted(moments, time)

    click_key = composite(click_users, click_times)
    finer = [] if click_fractions is None else [click_fractions]
    order = np.lexsort([*finer, click_key])
    click_key = click_key[order]
    end = np.searchsorted(click_key, composite(users, times), side="left")
    first = np.searchsorted(people, users) * (len(moments) + 1)
    begin = np.searchsorted(click_key, first, side="left")
    return order, np.maximum(begin, end - max_history), end
