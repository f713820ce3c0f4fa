"""The schema that a log and its catalogue are built with, before it is fitted."""

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc

from hccm_tf.data.feature import HISTORY, Feature
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.columns import ITEM_COLUMNS
from hccm_tf.preparation.examples.log_values import FEATURE_DTYPES

MAX_HISTORY = 100
# Of items with a value, the share with one of their own above which `item_id` says it.
MOSTLY_OWN = 0.8


def history_columns(items, types, told=None):
    """The items' columns whose values an inferred schema knows of each click, too.

    Id and category, which image models and explanations look for, and attributes: of
    those that are categories all, in the table's order, but for such as titles, which
    nearly every item has for itself. (Images have a history of their own.)

    Args:
        items: Arrow table of the catalogue.
        types: name → type of the columns, as they become.
        told: names of columns that shall have histories, instead of the rule.

    Returns:
        list of str.

    Raises:
        InputError: if a column is told that can have none.
    """
    possible = [
        name
        for name in items.column_names
        if name not in ITEM_COLUMNS and types[name] != pa.float32()
    ]
    always = ["item_id", "category"]
    for name in told or ():
        if name not in (*always, *possible):
            raise InputError(
                "history_columns: columns of the items that are categories: "
                f"{', '.join([*always, *possible])}. Received: {name}"
            )
    if told is None:
        told = [name for name in possible if not _is_mostly_own(items[name])]
    return [*always, *(name for name in possible if name in told)]


def _is_mostly_own(column):
    """Whether nearly all items with a value have one that no other has."""
    present = column.drop_null()
    if pa.types.is_string(present.type):
        present = present.filter(pc.not_equal(present, ""))
    return len(pc.unique(present)) > MOSTLY_OWN * len(present)


def infer_schema(types, histories):
    """A schema from the columns' types.

    Args:
        types: name → type of the columns that become features, as they become.
        histories: names of those that clicks have, too.
    """
    features = [
        Feature(
            name,
            "float" if dtype == pa.float32() else "vocabulary",
            FEATURE_DTYPES[dtype],
        )
        for name, dtype in types.items()
    ]
    for name in histories:
        features.append(Feature(HISTORY + name, "sequence", shares=name))
    return Schema(tuple(features), MAX_HISTORY)


def complete_schema(schema, item_columns, **choices):
    """A schema that knows the catalogue's columns, and what the caller has chosen.

    Args:
        schema: `Schema`.
        item_columns: names of the catalogue's columns.
        **choices: fields of `Schema`; `None` for the schema's own.
    """
    features = []
    for feature in schema.features:
        item = feature.name in item_columns
        candidate = item or feature.candidate
        feature = dataclasses.replace(feature, candidate=candidate, item=item)
        features.append(feature)
    choices = {name: value for name, value in choices.items() if value is not None}
    return dataclasses.replace(schema, features=tuple(features), **choices)


def check_schema_fits(schema, types, item_columns, joined):
    """Raises `InputError` if a schema does not fit the columns.

    Args:
        schema: `Schema`.
        types: name → type of all columns, as they become; `None` for those left out.
        item_columns: names of the catalogue's columns.
        joined: whether histories are joined, not ready-made: those hold items only.
    """
    for feature in schema.sequences:
        if not joined and feature.shares not in item_columns:
            raise InputError(
                f"schema: {feature.name}: ready-made histories hold items, and "
                f"{feature.shares} is no column of theirs: leave the feature out"
            )
    for feature in schema.scalars:
        if feature.name not in types:
            raise InputError(
                f"schema: no column {feature.name}. Received: {', '.join(types)}"
            )
        dtype = FEATURE_DTYPES.get(types[feature.name])
        if not feature.fits(dtype):
            raise InputError(
                f"schema: feature {feature.name} of kind {feature.kind} and dtype "
                f"{feature.dtype} does not fit its column, which is {dtype}"
            )
