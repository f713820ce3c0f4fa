"""The item table: item id → what the model takes of the items' columns."""

import numpy as np
import pyarrow as pa
import tensorflow as tf

from hccm_tf.data import ids
from hccm_tf.serving.inputs import request_name
from hccm_tf.serving.item_inputs import encode, item_columns
from hccm_tf.serving.representations import table_variable

# Names of a table's variables, by which they are found in an export.
ITEM_KEYS = "items.keys"
ITEM_CHECKS = "items.checks"
ITEM_VALUES = "items.values."


class ItemTable(tf.Module):
    """Looks columns of items up by their ids, in graph operations.

    As with `RepresentationTable`, the number of rows does not stand in a graph.

    Args:
        keys: int64 `[I]`, sorted keys of item ids, I at least 1.
        values: input's name of a feature → int32 or float32 `[I + 1]`, as of
            `item_inputs.encode`; row 0 is of no item, row i + 1 is that of key i.
        checks: int64 `[I]`, of ids that are text, see `hccm_tf.data.ids`; else `None`.
    """

    def __init__(self, keys, values, checks=None):
        super().__init__(name="item_table")
        self.item_keys = table_variable(keys, ITEM_KEYS)
        self.item_values = {
            name: table_variable(column, ITEM_VALUES + name)
            for name, column in values.items()
        }
        self.item_checks = None
        if checks is not None:
            self.item_checks = table_variable(checks, ITEM_CHECKS)

    def find(self, item_ids):
        """Row numbers, int64 of their shape; 0 for an item that is not there."""
        return ids.find_ids(self.item_keys, item_ids, self.item_checks) + 1

    def look_up(self, name, rows):
        """Values of a feature, by its input's name, in rows."""
        return tf.gather(self.item_values[name], rows)


def item_keys(item_ids):
    """The keys of a catalogue's ids; of two that have one key, one is left out.

    Args:
        item_ids: `[N]`, distinct int64 or str.

    Returns:
        `(keys, order, checks)`: int64 `[I]`, sorted, which of the ids has each, and
        checks of text, `None` of integers.
    """
    keys, order, collisions = ids.distinct_keys(item_ids)
    for line in ids.describe_collisions("items", collisions, "unknown"):
        print(line)
    checks = None
    if item_ids.dtype == object:
        checks = ids.to_checks(tf.constant(item_ids[order], tf.string)).numpy()
    return keys, order, checks


def item_table(schema, catalogue):
    """The `ItemTable` of a catalogue.

    Args:
        schema: `Schema` with `item_columns`.
        catalogue: Arrow table of `DataFolder.catalogue` with these and `item_id`.
    """
    keys, order, checks = item_keys(catalogue["item_id"].to_numpy())
    catalogue = catalogue.take(pa.array(order))
    columns = {}
    for feature in [schema["item_id"], *item_columns(schema)]:
        raw = np.append(feature.missing, catalogue[feature.name].to_numpy())
        columns[request_name(feature.name)] = tf.constant(raw, feature.dtype)
    values = encode(schema, columns)
    del values["item_id"]
    return ItemTable(keys, values, checks)
