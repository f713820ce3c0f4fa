"""Requests made of plain values: ids, which are looked up, or whole items."""

import numbers
import re

import pandas as pd

from hccm_tf.data.feature import HISTORY_IMAGE, MISSING
from hccm_tf.data.image_inputs import SIDES
from hccm_tf.data.item_features import carried
from hccm_tf.errors import InputError
from hccm_tf.serving.request import rank_request

CLICKS = ("user_id", "item_id", "timestamp")
# Columns of a log that are no features; a row of it may be a request.
OF_A_LOG = ("item_id", "timestamp", "label", "split", "request_id", "weight")
CONVERT = {"int64": int, "float32": float, "string": lambda value: str(value).encode()}


def plain_request(requests, schema, items, with_images=True, clicks=None, sides=SIDES):
    """Tensors of `rank` from plain values; name → array.

    A request is what a user is shown: `{"user_id": 7, "candidates": [11, 12]}`, with
    whatever else the model knows of user and moment, `"hour": 9`, and `"history"`, what
    the user clicked, oldest first. A candidate or a click is an id of `items`, or a
    dict, `{"item_id": 11, "position": 2}`, whose columns go before those of `items`. Of
    what an export knows of its items, only ids and images are in a request, whatever
    else is given of an item. An id may be a number or its digits, as JSON has it.

    Args:
        requests: list of such dicts.
        schema: `Schema` of the model.
        items: data frame of the catalogue, `item_id, image, category` and attributes;
            with `item_id` as its index it is not indexed anew each time.
        with_images: whether the model takes images.
        clicks: data frame `user_id, item_id, timestamp` of what users clicked up to
            now, for requests without `history`; without it those have none. Of a log,
            with `label`, its clicks count.
        sides: of `hccm_tf.data.image_inputs.SIDES`, whose images the model takes.

    Raises:
        InputError: names the request, from 0, and what it lacks, or has and the model
            does not know.
    """
    if isinstance(requests, dict):
        raise InputError("requests: a list of dicts. Received: one dict")
    if "item_id" in items:
        items = items.set_index("item_id")
    if not items.index.is_unique:
        twice = items.index[items.index.duplicated()][0]
        raise InputError(f"items: item {twice} is in the catalogue twice")
    lacks = [name for name in CLICKS if clicks is not None and name not in clicks]
    if lacks:
        raise InputError(f"clicks: no column {', '.join(lacks)}")
    features = {feature.name for feature in schema.scalars}
    known = {"candidates", "history", "user_id", *features, *OF_A_LOG}
    schema, rows = carried(schema), []
    for number, request in enumerate(requests):
        try:
            if unknown := sorted(map(str, {*request} - known)):
                told = {"candidates", "history", *(f.name for f in schema.scalars)}
                raise InputError(
                    f"{', '.join(unknown)}: nothing of a request, which may have "
                    f"{', '.join(sorted(told))}"
                )
            rows.append(_rows(request, schema, items, clicks))
        except InputError as error:
            raise InputError(f"requests: number {number}, from 0: {error}") from error
    return rank_request(rows, schema, with_images, sides)


def _rows(request, schema, items, clicks):
    """A row for each candidate, as `Impressions.rows`."""
    candidates = [_item(item, items) for item in request.get("candidates", ())]
    history = request.get("history")
    if history is None:
        history = _clicked(request, clicks)
    history = [_click(item, items) for item in history[-schema.max_history :]]
    shared = {HISTORY_IMAGE: [_image(item) for item in history]}
    for feature in schema.sequences:
        if feature.name != HISTORY_IMAGE:
            told = [_value(item, feature.shares, feature) for item in history]
            shared[feature.name] = told
    rows = []
    for item in candidates:
        told = {**request, **item}
        row = {f.name: [_value(told, f.name, f)] for f in schema.scalars}
        rows.append({**row, **shared, "image": [_image(item)]})
    return rows


def _clicked(request, clicks):
    """The items that a user clicked, oldest first."""
    if clicks is None:
        return []
    user_id = _as_in(clicks.user_id, request.get("user_id"))
    own = clicks[clicks.user_id == user_id]
    if "label" in own:
        own = own[own.label == 1]
    return own.sort_values("timestamp", kind="stable").item_id.tolist()


def _click(item, items):
    """The columns of a clicked item, which may be gone from the catalogue; dict."""
    if isinstance(item, dict) or _as_in(items.index, item) in items.index:
        return _item(item, items)
    return {"item_id": item}


def _item(item, items):
    """The columns of an item; dict."""
    told = item if isinstance(item, dict) else {"item_id": item}
    item_id = _as_in(items.index, told.get("item_id"))
    if item_id not in items.index:
        if isinstance(item, dict):
            return told
        raise InputError(
            f"item {item!r} is not in the catalogue; give what a request has of it, as "
            f"{{'item_id': {item!r}, 'image': ...}}"
        )
    place = items.index.get_loc(item_id)
    return {name: items[name].iat[place] for name in items} | told


def _as_in(ids, value):
    """An id in the type of a column of ids, if it can be that."""
    some = next((known for known in ids.array[:100] if not _is_missing(known)), None)
    if isinstance(some, str):
        return str(value) if isinstance(value, numbers.Integral) else value
    is_number = isinstance(value, str) and re.fullmatch("-?[0-9]+", value)
    return int(value) if is_number and isinstance(some, numbers.Real) else value


def _is_missing(value):
    return value is None or (pd.api.types.is_scalar(value) and pd.isna(value))


def _image(item):
    image = item.get("image")
    return b"" if _is_missing(image) else str(image).encode()


def _value(told, column, feature):
    """A column as a request has it; what is missing in it is said as in the log."""
    if column == "image":
        return _image(told)
    if column not in told:
        raise InputError(
            f"no {column}, which the model takes. Received: {', '.join(told)}"
        )
    value = told[column]
    try:
        value = MISSING[feature.dtype] if _is_missing(value) else value
        return CONVERT[feature.dtype](value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{column}: {feature.dtype} is what the model takes. Received: {value!r}"
        ) from error
