"""Exports a trained model as a SavedModel that answers from ids alone."""

import json
import pathlib

import keras
import tensorflow as tf

from hccm_tf.atomic import new_folder, only_writer
from hccm_tf.data.catalogue import image_categories
from hccm_tf.data.folder import DataFolder
from hccm_tf.models import IMAGE_MODELS, build_form, uses_category
from hccm_tf.models.image_encoder import sides
from hccm_tf.serving.representations import encode_catalogue
from hccm_tf.serving.signatures import Signatures
from hccm_tf.serving.warmup import write_warmup

# `FeatureMapStore.cnn` of the maps that a version's model takes.
CNN = pathlib.Path("assets.extra", "feature_maps.json")


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
        feature_maps: `FeatureMapStore` or `ImageFolder`, `None` for a model without
            images.
        export_dir: folder of the versions, `saved_models/<name>`.
        model_options: dict, the `ModelOptions` of the model.
        representation_dtype: `"float32"`, `"float16"` or `"int8"`, of the table.

    Returns:
        `pathlib.Path` of the version.
    """
    table, options = None, model_options or {}
    if model.name in IMAGE_MODELS:
        table = encode_images_of(
            model, schema, data_dir, feature_maps, representation_dtype, options
        )
    forms = build_forms(model, schema, options)
    endpoints = Signatures(schema, forms, table).endpoints()
    with only_writer(export_dir):
        version = next_version(export_dir)
        with new_folder(version) as folder:
            write_saved_model(folder, endpoints)
            (folder / CNN).parent.mkdir()
            if table is not None:
                cnn = json.dumps(feature_maps.cnn, indent=2)
                (folder / CNN).write_text(cnn + "\n")
            own = sides(model)
            write_warmup(folder, data_dir, schema, endpoints, feature_maps, own)
    return version


def build_forms(model, schema, options):
    """The `forms` of `Signatures` that a model has.

    Args:
        model: of `build_model`.
        schema: `Schema`.
        options: dict, the model's `ModelOptions`.
    """
    with_images = model.name in IMAGE_MODELS
    wanted = {
        "rank": any(feature.candidate for feature in schema.scalars),
        "explain": "history" in sides(model)
        or (schema.sequences and model.name != "base"),
        "encode_images": with_images,
    }
    forms = {"ranker": model.get_layer("ranker") if with_images else model}
    for name in wanted:
        if wanted[name]:
            forms[name] = build_form(name, model, schema, **options)
    return forms


def next_version(export_dir):
    """Path of the next version below `export_dir`."""
    number = max(versions(export_dir), default=0) + 1
    return pathlib.Path(export_dir) / str(number)


def versions(export_dir):
    """Numbers of the versions below `export_dir`, ascending."""
    names = [path.name for path in pathlib.Path(export_dir).glob("*")]
    return sorted(int(name) for name in names if name.isdigit())


def encode_images_of(model, schema, data_dir, feature_maps, dtype, options):
    """The `RepresentationTable` of a data folder's catalogue."""
    keys, category = image_categories(schema, DataFolder(data_dir).catalogue())
    if not uses_category(model.name, **options):
        category = None
    return encode_catalogue(
        model.get_layer("image_encoder"),
        feature_maps,
        keys,
        category,
        dtype,
    )


def write_saved_model(folder, endpoints):
    """Writes `Signatures.endpoints` as a SavedModel."""
    archive = keras.export.ExportArchive()
    for name, (function, spec) in endpoints.items():
        archive.add_endpoint(name, function, input_signature=[spec])
    archive.write_out(str(folder), verbose=False)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater
    updater = updater(str(folder))
    # What the Regress API asks for.
    updater.replace_method_name("regress", "tensorflow/serving/regress")
    updater.save()
