"""Exports a trained model as a SavedModel that answers from ids alone."""

import json
import pathlib

import tensorflow as tf

from hccm_tf.atomic import new_folder, only_writer
from hccm_tf.data import ids
from hccm_tf.data.catalogue import image_categories
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.serving.item_inputs import item_columns
from hccm_tf.serving.items import item_table
from hccm_tf.serving.model_card import CARD, model_card
from hccm_tf.serving.representations import encode_catalogue
from hccm_tf.serving.signatures import Signatures
from hccm_tf.serving.versions import next_version
from hccm_tf.serving.warmup import write_warmup

# `ImageStore.cnn` of the maps that a version's model takes.
CNN = pathlib.Path("assets.extra", "feature_maps.json")


def export(
    trained,
    data_dir,
    images,
    export_dir,
    representation_dtype="float32",
    origin=None,
):
    """Writes `export_dir/<version>/`, the next number, whole or not at all.

    Args:
        trained: `hccm_tf.runs.TrainedModel`.
        data_dir: data folder, for its catalogue and the warm-up requests.
        images: `ImageStore`, `None` for a model without images.
        export_dir: folder of the versions, `saved_models/<name>`.
        representation_dtype: `"float32"`, `"float16"` or `"int8"`, of the table.
        origin: `hccm_tf.serving.model_card.Origin`, what its card says of its run.

    Returns:
        `pathlib.Path` of the version.

    Raises:
        InputError: if the model was not told the truth.
    """
    if trained.configuration.settings.is_control:
        raise InputError(
            "export_dir: a control, with images or categories shuffled, has no export"
        )
    table = None
    if images is not None:
        table = encode_images_of(trained, data_dir, images, representation_dtype)
    forms = trained.definition.forms(trained.keras_model)
    items = item_table_of(trained, data_dir)
    signatures = Signatures(trained.definition, forms, table, items)
    card = model_card(trained, data_dir, signatures, origin)
    with only_writer(export_dir):
        version = next_version(export_dir)
        with new_folder(version) as folder:
            write_saved_model(folder, signatures.endpoints())
            (folder / CNN).parent.mkdir()
            if table is not None:
                cnn = json.dumps(images.cnn, indent=2)
                (folder / CNN).write_text(cnn + "\n")
            write_warmup(folder, data_dir, signatures, images)
            (folder / CARD).write_text(card, "utf-8")
    return version


def encode_images_of(trained, data_dir, images, dtype):
    """The `RepresentationTable` of a data folder's catalogue."""
    catalogue = DataFolder(data_dir).catalogue()
    keys, category = image_categories(trained.schema, catalogue)
    return encode_catalogue(
        trained.keras_model.get_layer("image_encoder"),
        images,
        keys,
        category if trained.definition.uses_category else None,
        dtype,
        ids.to_checks(catalogue["image"].to_numpy()).numpy(),
    )


def item_table_of(trained, data_dir):
    """The `ItemTable` of a data folder's catalogue, `None` for nothing `of_items`."""
    names = [feature.name for feature in item_columns(trained.schema)]
    if not names:
        return None
    catalogue = DataFolder(data_dir).catalogue(["item_id", *names])
    return item_table(trained.schema, catalogue)


def write_saved_model(folder, endpoints):
    """Writes `Signatures.endpoints` as a SavedModel."""
    # `keras.export.ExportArchive` would trace each of them twice.
    signatures = {
        name: tf.function(
            function, input_signature=[spec], autograph=False
        ).get_concrete_function()
        for name, (function, spec) in endpoints.items()
    }
    module = tf.Module()
    # What a function uses is saved only if the module has it.
    module.all_variables = [list(each.variables) for each in signatures.values()]
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(folder), signatures)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater
    updater = updater(str(folder))
    # What the Regress API asks for.
    updater.replace_method_name("regress", "tensorflow/serving/regress")
    updater.save()
