"""Compares the histories of a data folder with the clicks in it."""

import numpy as np
import pandas as pd

SLICE_ROWS = 4096


def _run_starts(*columns):
    """For each row of sorted columns the first row with the same values."""
    change = np.any([np.diff(column, prepend=column[:1]) for column in columns], axis=0)
    return np.maximum.accumulate(np.where(change, np.arange(change.size), 0))


def _clicks_before(log):
    """Counts the clicks that each impression's history may hold.

    Returns:
        `(clicks, begin, end)`: data frame `user, time, key, moment, copy` of all clicks
        in order of user and time, where `moment` numbers the user's seconds and `copy`
        the clicks of one key in a second; and for each impression the range of its
        user's clicks in earlier seconds, int64 `[N]`.
    """
    order = np.lexsort((log["time"], log["user"]))
    user, time = log["user"][order], log["time"][order]
    is_click = log["label"][order] == 1
    moment = _run_starts(user, time)
    clicks_before = np.concatenate([[0], np.cumsum(is_click)])
    begin, end = np.empty((2, order.size), np.int64)
    begin[order] = clicks_before[_run_starts(user)]
    end[order] = clicks_before[moment]
    clicks = pd.DataFrame(
        {"user": user, "time": time, "key": log["shown"][order], "moment": moment}
    )[is_click]
    clicks["copy"] = clicks.groupby(["moment", "key"]).cumcount()
    return clicks, begin, end


def compare_histories(log, max_history):
    """Compares histories with the clicks of the same impressions.

    A history must be the user's clicks strictly before the impression's second, the
    newest `max_history`, oldest first. Among clicks of one second the order is free,
    and so is which of them stay where `max_history` cuts between them.

    Args:
        log: dict of arrays as the function of `make_parser` returns them, of all
            impressions of some users.
        max_history: int.

    Returns:
        `(wrong, leaks)`, bool `[N]`: the histories that are not as they must be, and
        those of them that hold a click of the impression's own second or later.
    """
    clicks, begin, end = _clicks_before(log)
    begin = np.maximum(begin, end - max_history)
    # With a place for the histories that are too long, which need no comparison.
    clicked = np.append(clicks.key.to_numpy(), 0)
    moment, last = clicks.moment.to_numpy(), len(clicks)
    lengths = log["length"]
    wrong, leaks = lengths != end - begin, np.zeros(lengths.size, bool)
    stop = np.cumsum(lengths)
    start = stop - lengths
    # In slices, because histories take far more memory than all the rest.
    for first in range(0, lengths.size, SLICE_ROWS):
        rows = np.arange(first, min(first + SLICE_ROWS, lengths.size))
        row = np.repeat(rows, lengths[rows])
        key = log["history"][start[first] : stop[rows[-1]]]
        place = start[first] + np.arange(key.size)
        place += np.repeat((begin - start)[rows], lengths[rows])
        fits = np.repeat(~wrong[rows], lengths[rows])
        unlike = row[fits & (clicked[np.minimum(place, last)] != key)]
        if unlike.size:
            # Other clicks, or those of one second in another order.
            fits &= np.isin(row, unlike)
            held = {"row": row[fits], "moment": moment[place[fits]], "key": key[fits]}
            held = pd.DataFrame(held)
            held["copy"] = held.groupby(["row", "moment", "key"]).cumcount()
            same = ["moment", "key", "copy"]
            held = held.merge(clicks[same], "left", same, indicator="found")
            wrong[held.row[held.found != "both"]] = True
        if wrong[rows].any():
            bad = wrong[row]
            held = pd.DataFrame({"row": row[bad], "key": key[bad]})
            for name in ("user", "time"):
                held[name] = log[name][held.row]
            leaks[_leaking_rows(held, clicks)] = True
    return wrong, leaks


def _leaking_rows(held, clicks):
    """Rows that hold a click more often than it had occurred, and it did occur later.

    Args:
        held: data frame `row, user, time, key`, the clicks that histories hold.
        clicks: data frame of `_clicks_before`.

    Returns:
        `pandas.Series` of int64.
    """
    same = ["user", "key"]
    held = held.value_counts().rename("held").reset_index()
    held = held.merge(clicks.value_counts(same).rename("ever"), on=same)
    clicks = clicks[["time", *same]].assign(before=clicks.groupby(same).cumcount() + 1)
    held = pd.merge_asof(
        held.sort_values("time"),
        clicks.sort_values("time", kind="stable"),
        on="time",
        by=same,
        allow_exact_matches=False,
    )
    before = held.before.fillna(0)
    return held.row[(held.held > before) & (held.ever > before)]
