"""Columns as text."""

import pyarrow as pa
import pyarrow.compute as pc


def to_text(column):
    """A column as text: a whole number without a point, whatever its type."""
    if not pa.types.is_floating(column.type):
        return column.cast(pa.string())
    column = column.cast(pa.float64())
    column = pc.if_else(pc.is_finite(column), column, None)
    whole = pc.and_(
        pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), 2.0**53)
    )
    integers = pc.if_else(whole, column, None).cast(pa.int64())
    return pc.coalesce(integers.cast(pa.string()), column.cast(pa.string()))
