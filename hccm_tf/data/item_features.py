"""What ids of items tell of a schema's features, and what they do not."""

import dataclasses

from hccm_tf.data.feature import HISTORY


def of_items(schema):
    """The features that ids of items tell, so that a request to an export need not.

    They are the items' columns but for id and image, and the histories of such. All of
    them or, where the ids are missing among the features, none.

    Args:
        schema: `Schema`.

    Returns:
        tuple of `Feature`.
    """
    names = {f.name for f in schema.scalars if f.item} - {"item_id", "image"}
    clicks = tuple(f for f in schema.sequences if f.shares in names)
    needed = ["item_id", *([HISTORY + "item_id"] if clicks else [])]
    if not all(name in schema for name in needed):
        return ()
    if not schema["item_id"].item or schema["item_id"].is_float:
        return ()
    return tuple(f for f in schema.scalars if f.name in names) + clicks


def carried(schema):
    """The schema of what is not `of_items`, which a request carries."""
    told = of_items(schema)
    features = tuple(f for f in schema.features if f not in told)
    return dataclasses.replace(schema, features=features)
