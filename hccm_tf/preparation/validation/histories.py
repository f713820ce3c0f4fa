"""Compares the histories of a data folder with the clicks in it."""

import numpy as np
import pandas as pd

SLICE_ROWS = 4096
# So many seconds in which its user clicked may lie between the first impression of a
# request and the first of one of its records: a bound on the work for what is damaged.
MAX_SECONDS = 1000


def _run_starts(*columns):
    """For each row of sorted columns the first row with the same values."""
    change = np.any([np.diff(column, prepend=column[:1]) for column in columns], axis=0)
    return np.maximum.accumulate(np.where(change, np.arange(change.size), 0))


def first_times(log):
    """Each request's earliest second, int64 `[R]`."""
    starts = np.cumsum(log["size"]) - log["size"]
    return np.minimum.reduceat(log["timestamp"], starts)


def _clicks_before(log, times):
    """Counts the clicks that each request's history may hold.

    Args:
        log: see `compare_histories`.
        times: int64 `[R]`, of `first_times`.

    Returns:
        `(clicks, begin, end)`: data frame `user, time, key, moment, copy` of all clicks
        in order of user and time, where `moment` numbers the user's seconds and `copy`
        the clicks of one key in a second; and for each request the range of its user's
        clicks in earlier seconds, int64 `[R]`.
    """
    # The requests themselves take a place among the impressions, as no clicks.
    count = times.size
    user = np.concatenate([log["user"], np.repeat(log["user"], log["size"])])
    time = np.concatenate([times, log["timestamp"]])
    is_click = np.concatenate([np.zeros(count, bool), log["label"] == 1])
    order = np.lexsort((time, user))
    user, time, is_click = user[order], time[order], is_click[order]
    moment = _run_starts(user, time)
    clicks_before = np.concatenate([[0], np.cumsum(is_click)])
    begin, end = np.empty((2, order.size), np.int64)
    begin[order] = clicks_before[_run_starts(user)]
    end[order] = clicks_before[moment]
    key = log["shown"][order[is_click] - count]
    clicks = pd.DataFrame({"user": user, "time": time, "moment": moment})[is_click]
    clicks["key"] = key
    clicks["copy"] = clicks.groupby(["moment", "key"]).cumcount()
    return clicks, begin[:count], end[:count]


def _held(log, rows):
    """The clicks that the histories of some requests hold.

    Returns:
        `(row, key, place)`: for each click its request's place in `rows`, its key, and
        its place in the history, int64.
    """
    lengths = log["length"][rows]
    row = np.repeat(np.arange(rows.size), lengths)
    place = np.arange(row.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return row, log["history"][log["start"][rows][row] + place], place


def _unlike(log, clicks, rows, begin, end):
    """Which histories are not a range of the clicks, bool like `rows`.

    Args:
        log: see `compare_histories`; with `start`, where each history begins.
        clicks: data frame of `_clicks_before`.
        rows: int64, requests.
        begin: int64, the range of clicks that each must be.
        end: int64, likewise.
    """
    # With a place for the histories that are too long, which need no comparison.
    clicked = np.append(clicks.key.to_numpy(), 0)
    moment, last = clicks.moment.to_numpy(), len(clicks)
    wrong = log["length"][rows] != end - begin
    # In slices, because histories take far more memory than all the rest.
    for first in range(0, rows.size, SLICE_ROWS):
        part = slice(first, first + SLICE_ROWS)
        row, key, place = _held(log, rows[part])
        place += begin[part][row]
        fits = ~wrong[part][row]
        unlike = row[fits & (clicked[np.minimum(place, last)] != key)]
        if unlike.size:
            # Other clicks, or those of one second in another order.
            fits &= np.isin(row, unlike)
            held = {"row": row[fits], "moment": moment[place[fits]], "key": key[fits]}
            held = pd.DataFrame(held)
            held["copy"] = held.groupby(["row", "moment", "key"]).cumcount()
            same = ["moment", "key", "copy"]
            held = held.merge(clicks[same], "left", same, indicator="found")
            wrong[first + held.row[held.found != "both"]] = True
    return wrong


def _unlike_any(log, clicks, rows, begin, end, max_history):
    """Which histories are not the newest clicks before any second up to the given ones.

    Args:
        log: as of `_unlike`.
        clicks: as of `_unlike`.
        rows: as of `_unlike`.
        begin: int64, the first click of each request's user.
        end: int64, the number of clicks before the request's earliest second.
        max_history: int.
    """
    moment_begins = np.append(_run_starts(clicks.moment.to_numpy()), len(clicks))
    lengths, wrong = log["length"][rows], np.ones(rows.size, bool)
    rest, end = np.arange(rows.size), end.copy()
    for _ in range(MAX_SECONDS):
        # A history that is not full begins with the user's first click.
        whole = begin[rest] + lengths[rest]
        step = moment_begins[end[rest] - 1]
        step = np.where(lengths[rest] < max_history, np.minimum(whole, step), step)
        ends = (end[rest] > step) & (step >= whole) & (moment_begins[step] == step)
        rest, step = rest[ends], step[ends]
        if not rest.size:
            break
        end[rest] = step
        first = np.maximum(begin[rest], step - max_history)
        wrong[rest] = _unlike(log, clicks, rows[rest], first, step)
        rest = rest[wrong[rest]]
    return wrong


def compare_histories(log, max_history, several_seconds=False):
    """Compares histories with the clicks of the same impressions.

    A history must be the user's clicks strictly before the request's earliest second,
    the newest `max_history`, oldest first. Among clicks of one second the order is
    free, and so is which of them stay where `max_history` cuts between them.

    Args:
        log: dict of arrays as the function of `make_parser` returns them, of all
            requests of some users.
        max_history: int.
        several_seconds: whether requests of the log have several seconds. A record then
            need not hold the impression of the earliest one: its history may end
            before any second up to the earliest that it holds.

    Returns:
        `(wrong, leaks)`, bool `[R]`: the histories that are not as they must be, and
        those of them that hold a click of the request's earliest second or later.
    """
    times = first_times(log)
    clicks, begin, end = _clicks_before(log, times)
    log = {**log, "start": np.cumsum(log["length"]) - log["length"]}
    rows = np.arange(times.size)
    wrong = _unlike(log, clicks, rows, np.maximum(begin, end - max_history), end)
    rows = np.flatnonzero(wrong)
    if several_seconds and rows.size:
        found = begin[rows], end[rows]
        wrong[rows] = _unlike_any(log, clicks, rows, *found, max_history)
    leaks = np.zeros(wrong.size, bool)
    rows = np.flatnonzero(wrong)
    for first in range(0, rows.size, SLICE_ROWS):
        part = rows[first : first + SLICE_ROWS]
        row, key, _ = _held(log, part)
        held = pd.DataFrame({"row": part[row], "key": key})
        held["user"], held["time"] = log["user"][held.row], times[held.row]
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
