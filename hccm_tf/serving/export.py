"""Exports a trained model as a SavedModel that answers from ids alone."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from hccm_tf.atomic import new_folder
from hccm_tf.data.catalogue import read_catalogue
from hccm_tf.models import IMAGE_MODELS, build_form
from hccm_tf.serving.representations import encode_catalogue
from hccm_tf.serving.signatures import Signatures
from hccm_tf.serving.warmup import write_warmup


def export(
    model,
    schema,
    data_dir,
    feature_maps,
    export_dir,
    model_options=None,
    representation_dtype="float32",
):
    """Writes `export_dir/<version>/`, the next number, whole or not at all.

    Args:
        model: trained, of `build_model`.
        schema: `Schema`.
        data_dir: data folder, for its catalogue and the warm-up requests.
        feature_maps: `FeatureMapStore`, `None` for a model without images.
        export_dir: folder of the versions, `saved_models/<name>`.
        model_options: dict, the `ModelOptions` of the model.
        representation_dtype: `"float32"`, `"float16"` or `"int8"`, of the table.

    Returns:
        `pathlib.Path` of the version.
    """
    options = model_options or {}
    forms, table = {"ranker": model}, None
    if any(feature.candidate for feature in schema.scalars):
        forms["rank"] = build_form("rank", model, schema, **options)
    if model.name in IMAGE_MODELS:
        table = _table(model, schema, data_dir, feature_maps, representation_dtype)
        forms["ranker"] = model.get_layer("ranker")
        forms["encode_images"] = build_form("encode_images", model, schema, **options)
    if table is not None or (schema.sequences and model.name != "base"):
        forms["explain"] = build_form("explain", model, schema, **options)
    endpoints = Signatures(schema, forms, table).endpoints()
    archive = keras.export.ExportArchive()
    for name, (function, spec) in endpoints.items():
        archive.add_endpoint(name, function, input_signature=[spec])
    version = next_version(export_dir)
    with new_folder(version) as folder:
        archive.write_out(str(folder), verbose=False)
        _set_regress_method(folder)
        write_warmup(folder, data_dir, schema, endpoints, feature_maps)
    return version


def next_version(export_dir):
    """Path of the next version below `export_dir`."""
    number = max(versions(export_dir), default=0) + 1
    return pathlib.Path(export_dir) / str(number)


def versions(export_dir):
    """Numbers of the versions below `export_dir`, ascending."""
    names = [path.name for path in pathlib.Path(export_dir).glob("*")]
    return sorted(int(name) for name in names if name.isdigit())


def _table(model, schema, data_dir, feature_maps, dtype):
    """The `RepresentationTable` of a data folder's catalogue."""
    catalogue = read_catalogue(data_dir)
    category = np.ones(len(catalogue), np.int32)
    if "category" in schema:
        values = tf.constant(catalogue["category"].to_numpy())
        category = schema.index("category", values).numpy()
    return encode_catalogue(
        model.get_layer("image_encoder"),
        feature_maps,
        catalogue["image_key"].to_numpy(),
        category,
        dtype,
    )


def _set_regress_method(folder):
    """Gives the signature `regress` the method that the Regress API asks for."""
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater
    updater = updater(str(folder))
    updater.replace_method_name("regress", "tensorflow/serving/regress")
    updater.save()
