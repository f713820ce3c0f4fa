"""Which impressions are one request: what a user saw at one moment.

A request is named by the `request_id` of the log, or else by user and second, or in a
log without times by user and ready-made history. Rows of split `history` are clicks of
an earlier time: they are no requests, and neither counts nor binds their `request_id`.
"""

import numpy as np
import pyarrow as pa

from hccm_tf.preparation.examples.log_values import ALL_SPLITS, HISTORY_ITEM

NO_REQUEST = -1


def first_rows(*keys):
    """For each row the first one that has the same keys.

    Args:
        *keys: arrays `[N]` that can be sorted.

    Returns:
        int64 `[N]`.
    """
    order = np.lexsort(keys)
    if not len(order):
        return order
    new = np.zeros(len(order), bool)
    new[0] = True
    for key in keys:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    first = np.empty(len(order), np.int64)
    # The sort is stable: the first of those that are alike is the first row.
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def group(table, split):
    """The requests of a shard's rows.

    Args:
        table: Arrow table of the rows, in the log's order.
        split: int8 `[N]`, places in `ALL_SPLITS`; `None` where it follows from the
            time.

    Returns:
        `(request, time)`: int64 `[N]`, the row that is the first one of each row's
        request, `NO_REQUEST` for history; and the earliest second of that request,
        `None` without times.
    """
    request = np.full(len(table), NO_REQUEST)
    time = None
    if "timestamp" in table.column_names:
        time = table["timestamp"].to_numpy().copy()
    shown = np.arange(len(table))
    if split is not None:
        shown = np.flatnonzero(split != ALL_SPLITS.index("history"))
    if "request_key" in table.column_names:
        # The ids themselves, where they are text: two may have one key.
        named = "request_id" if "request_id" in table.column_names else "request_key"
        first = first_rows(values_of(table[named])[shown])
        if time is not None and len(shown):
            earliest = np.full(len(shown), np.iinfo(np.int64).max)
            np.minimum.at(earliest, first, time[shown])
            time[shown] = earliest[first]
    elif time is not None or HISTORY_ITEM in table.column_names:
        keys = [table["user_key"].to_numpy()[shown]]
        if time is not None:
            keys.append(time[shown])
        if split is not None:
            keys.append(split[shown])
        first = first_rows(*keys)
    else:
        first = np.arange(len(shown))
    request[shown] = shown[first]
    return request, time


def part(request, *keys):
    """Parts requests whose rows differ in further keys, each an array `[N]`."""
    shown = np.flatnonzero(request != NO_REQUEST)
    parted = np.full(len(request), NO_REQUEST)
    first = first_rows(request[shown], *(key[shown] for key in keys))
    parted[shown] = shown[first]
    return parted


def keep(request, kept):
    """The requests of the rows that are kept, bool `[N]`."""
    return part(request[kept])


def are_single(request):
    """Whether each request is one row."""
    shown = np.flatnonzero(request != NO_REQUEST)
    return np.array_equal(request[shown], shown)


def values_of(column):
    """A column as numbers `[N]` that are equal where its values are."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_string(column.type):
        return column.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    values = column.to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        # All that is missing is alike, and the two zeros are.
        values = np.where(np.isnan(values), np.float32(np.nan), values + 0.0)
        values = values.astype(np.float32).view(np.int32)
    return values


def differ(request, values):
    """Whether the values `[N]` of any two rows of a request differ."""
    shown = np.flatnonzero(request != NO_REQUEST)
    return bool((values[shown] != values[request[shown]]).any())


def part_by_columns(table, request, names):
    """Parts requests whose rows differ in columns of user or context."""
    for name in names:
        values = values_of(table[name])
        if differ(request, values):
            request = part(request, values)
    return request


def part_by_histories(table, request, max_history):
    """Parts requests whose rows have other ready-made histories."""
    if are_single(request):
        return request
    ready = table[HISTORY_ITEM].combine_chunks()
    items, offsets = ready.values.to_numpy(), ready.offsets.to_numpy()
    begin = np.maximum(offsets[:-1], offsets[1:] - max_history)
    codes = {}
    code = [
        codes.setdefault(items[first:last].tobytes(), len(codes))
        for first, last in zip(begin.tolist(), offsets[1:].tolist(), strict=True)
    ]
    return part(request, np.array(code))


def sizes(request):
    """Number of impressions of each request, int64 `[R]`, in their order."""
    counts = np.bincount(request[request != NO_REQUEST])
    return counts[counts > 0]
