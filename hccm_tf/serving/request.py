"""A request made of real impressions, in the form of TensorFlow Serving's REST."""

import tensorflow as tf

from hccm_tf.data.catalogue import read_catalogue
from hccm_tf.data.pipeline import data_files
from hccm_tf.features import HISTORY_IMAGE
from hccm_tf.serving.export import input_signature

PADDING = {"string": "", "int64": 0, "float32": 0.0}


def example_request(data_dir, schema, with_images, split="test", count=3):
    """The first impressions of a split as a request of `serving_default`.

    Args:
        data_dir: data folder.
        schema: `Schema`.
        with_images: whether the export is of a model with images.
        split: name.
        count: number of impressions.

    Returns:
        dict `{"signature_name", "inputs"}` that JSON can hold; see
        `hccm_tf.serving.export.input_signature` for the inputs.
    """
    catalogue = read_catalogue(data_dir)
    names = dict(
        zip(
            catalogue["image_key"].to_pylist(),
            catalogue["image"].to_pylist(),
            strict=True,
        )
    )
    rows = []
    for record in tf.data.TFRecordDataset(data_files(data_dir, split)).take(count):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        row = {}
        for name, feature in features.items():
            values = list(
                getattr(feature, feature.WhichOneof("kind") or "int64_list").value
            )
            if name in ("image", HISTORY_IMAGE):
                values = [names.get(value, "") for value in values]
            row[name] = [v.decode() if isinstance(v, bytes) else v for v in values]
        rows.append(row)
    lengths = [len(row[HISTORY_IMAGE]) for row in rows]
    inputs = {}
    for name, spec in input_signature(schema, with_images).items():
        if name == "history_length":
            inputs[name] = lengths
        elif spec.shape.rank == 1:
            inputs[name] = [row[name][0] for row in rows]
        else:
            padding = [PADDING[spec.dtype.name]]
            inputs[name] = [
                row[name] + padding * (max(lengths) - len(row[name])) for row in rows
            ]
    return {"signature_name": "serving_default", "inputs": inputs}
