"""Checks a configuration before it is trained."""

import dataclasses

from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.images.places import check_image_dir
from hccm_tf.models import ImageInput
from hccm_tf.training.fit import build, prepare
from hccm_tf.training.images import images_path
from hccm_tf.training.pretraining import check_pretraining


def check(configuration):
    """Raises an `InputError` for what would end a run before its first step.

    Builds the model; decodes no images, fits no projection, and loads no weights but
    those of a warm start.

    Args:
        configuration: `Configuration`.
    """
    if configuration.model.takes_pixels:
        _check_pixels(configuration)
        return
    options = configuration.options
    if getattr(options, "projection", None) == "pca":
        options = dataclasses.replace(options, projection="trainable")
    prepare(dataclasses.replace(configuration, options=options))


def _check_pixels(configuration):
    options, path = configuration.options, images_path(configuration)
    folder = DataFolder(configuration.data_dir)
    schema, names = folder.schema(), folder.catalogue(["image"])["image"].to_pylist()
    check_image_dir(names, path)
    check_pretraining(configuration)
    if configuration.settings.shuffle_categories and "category" not in schema:
        raise InputError("shuffle_categories: the schema has no feature category")
    images = ImageInput((options.image_size, options.image_size, 3))
    build(configuration.model(schema, options, images))
