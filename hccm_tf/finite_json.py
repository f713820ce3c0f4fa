"""JSON that every reader takes: it has no NaN and no Infinity, which are null."""

import json
import math


def to_text(content, indent=None):
    """JSON of what `json.dumps` takes."""
    return json.dumps(_with_null(content), indent=indent, allow_nan=False)


def _with_null(value):
    if isinstance(value, dict):
        return {name: _with_null(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_null(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_nan(value):
    """What was read, with NaN for null, where there are only numbers that may lack."""
    if isinstance(value, dict):
        return {name: with_nan(each) for name, each in value.items()}
    return math.nan if value is None else value
