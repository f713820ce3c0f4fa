"""The schema that a log and its catalogue are built with, before it is fitted."""

import dataclasses

import pyarrow as pa

from hccm_tf.data.feature import HISTORY, Feature
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.log_values import FEATURE_DTYPES

MAX_HISTORY = 100


def infer_schema(types):
    """A schema from the columns' types.

    Args:
        types: name → type of the columns that become features, as they become.
    """
    features = [
        Feature(
            name,
            "float" if dtype == pa.float32() else "vocabulary",
            FEATURE_DTYPES[dtype],
        )
        for name, dtype in types.items()
    ]
    for name in ("item_id", "category"):
        features.append(Feature(HISTORY + name, "sequence", shares=name))
    return Schema(tuple(features), MAX_HISTORY)


def complete_schema(schema, item_columns, **choices):
    """A schema that knows the catalogue's columns, and what the caller has chosen.

    Args:
        schema: `Schema`.
        item_columns: names of the catalogue's columns.
        **choices: fields of `Schema`; `None` for the schema's own.
    """
    features = tuple(
        dataclasses.replace(feature, candidate=True)
        if feature.name in item_columns
        else feature
        for feature in schema.features
    )
    choices = {name: value for name, value in choices.items() if value is not None}
    return dataclasses.replace(schema, features=features, **choices)


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
