"""Exports a trained model as a SavedModel that answers from ids alone."""

import pathlib

import keras
import tensorflow as tf

from hccm_tf import ids
from hccm_tf.atomic import new_folder
from hccm_tf.data.catalogue import read_catalogue
from hccm_tf.features import HISTORY_IMAGE, to_padded
from hccm_tf.models import IMAGE_MODELS
from hccm_tf.serving.representations import encode_catalogue


def input_signature(schema, with_images):
    """Named inputs of `serving_default`: raw columns as in the log.

    Scalars are `[B]`; histories are `[B, T]`, oldest click first, of which the first
    `history_length [B]` places count. Images are names as in the catalogue, empty for
    none.
    """
    spec = {
        f.name: tf.TensorSpec([None], f.dtype, f.name)
        for f in schema.scalars
        if f.name != "image"
    }
    for f in schema.sequences:
        spec[f.name] = tf.TensorSpec([None, None], f.dtype, f.name)
    if with_images:
        spec[HISTORY_IMAGE] = tf.TensorSpec([None, None], tf.string, HISTORY_IMAGE)
    if with_images or "image" in schema:
        spec["image"] = tf.TensorSpec([None], tf.string, "image")
    if schema.sequences or with_images:
        spec["history_length"] = tf.TensorSpec([None], tf.int64, "history_length")
    return spec


def _to_raw(signature, request):
    """The columns of a request in the form that a data set has them."""
    raw = dict(request)
    for name, spec in signature.items():
        if spec.shape.rank == 2:
            width = tf.shape(raw[name], tf.int64)[1]
            length = tf.clip_by_value(request["history_length"], 0, width)
            raw[name] = tf.RaggedTensor.from_tensor(raw[name], lengths=length)
    if "image" in raw:
        raw["image"] = ids.image_keys(raw["image"])
    return raw


def _table_inputs(schema, table, raw, inputs):
    """The image inputs of the ranker, looked up in the representation table."""
    item_category = inputs.get("category", tf.ones_like(raw["image"], tf.int32))
    history = schema.truncate(raw[HISTORY_IMAGE])
    keys = ids.image_keys(history.flat_values)
    if "history_category" in inputs:
        newest = schema.truncate(raw["history_category"])
        category = schema.index("category", newest.flat_values)
    else:
        category = tf.ones_like(keys, tf.int32)
    rows = history.with_flat_values(table.find(keys, category))
    return {
        "item_image": table.find(raw["image"], item_category),
        "history_image": to_padded(rows),
        "image_representation": table.representations.value,
    }


def export(model, schema, data_dir, feature_maps, export_dir):
    """Writes `export_dir/<version>/`, the next number, whole or not at all.

    Args:
        model: trained, of `build_model`.
        schema: `Schema`.
        data_dir: data folder, for its catalogue.
        feature_maps: `FeatureMapStore`, `None` for a model without images.
        export_dir: folder of the versions, `saved_models/<name>`.

    Returns:
        `pathlib.Path` of the version.
    """
    with_images = model.name in IMAGE_MODELS
    table, ranker = None, model
    if with_images:
        catalogue = read_catalogue(data_dir)
        category = catalogue["category"].to_numpy()
        if "category" in schema:
            category = schema.index("category", tf.constant(category)).numpy()
        else:
            category = tf.ones([len(category)], tf.int32).numpy()
        table = encode_catalogue(
            model.get_layer("image_encoder"),
            feature_maps,
            catalogue["image_key"].to_numpy(),
            category,
        )
        ranker = model.get_layer("ranker")
    signature = input_signature(schema, with_images)

    def serve(request):
        raw = _to_raw(signature, request)
        inputs = schema.index_all(raw)
        if with_images:
            inputs.update(_table_inputs(schema, table, raw, inputs))
        ctr = ranker(inputs, training=False)[:, 0]
        return {"ctr": schema.unsampled(ctr)}

    archive = keras.export.ExportArchive()
    archive.add_endpoint("serving_default", serve, input_signature=[signature])
    export_dir = pathlib.Path(export_dir)
    versions = [int(p.name) for p in export_dir.glob("*") if p.name.isdigit()]
    version = export_dir / str(max(versions, default=0) + 1)
    with new_folder(version) as folder:
        archive.write_out(str(folder), verbose=False)
    return version
