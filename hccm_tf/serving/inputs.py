"""The named inputs of signatures."""

import tensorflow as tf

from hccm_tf.data.column_names import input_name
from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.image_inputs import SIDES
from hccm_tf.data.item_features import carried


def request_name(column):
    """What a column's input is called in requests."""
    # There, the history's images are one column, whatever the model makes of them.
    return column if column == HISTORY_IMAGE else input_name(column)


def impression_spec(schema, with_images, many_candidates=False, sides=SIDES):
    """Named inputs of `serving_default`, or of `rank` with `many_candidates`.

    What an export knows of items by their ids, it is not told.
    """
    schema = carried(schema)
    scalar, matrix = [None], [None, None]
    candidate = matrix if many_candidates else scalar
    shapes = {
        request_name(f.name): (candidate if f.candidate else scalar, f.dtype)
        for f in schema.scalars
    }
    shapes.update({request_name(f.name): (matrix, f.dtype) for f in schema.sequences})
    if (with_images and "history" in sides) or HISTORY_IMAGE in schema:
        shapes[HISTORY_IMAGE] = matrix, tf.string
    if (with_images and "candidate" in sides) or "image" in schema:
        shapes["image"] = candidate, tf.string
    if schema.sequences or HISTORY_IMAGE in shapes:
        shapes["history_length"] = scalar, tf.int64
    if many_candidates:
        shapes["candidate_mask"] = matrix, tf.bool
    return {name: tf.TensorSpec(*spec, name) for name, spec in shapes.items()}
