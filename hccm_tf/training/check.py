"""Checks a configuration before it is trained."""

import dataclasses
import pathlib

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.models import ImageInput
from hccm_tf.training.fit import build
from hccm_tf.training.images import images_path


def check(configuration):
    """Raises an `InputError` for what would end a run before its first step.

    Builds the model; does not decode images, fit a projection or load weights.

    Args:
        configuration: `Configuration`.
    """
    schema = DataFolder(configuration.data_dir).schema()
    if configuration.settings.max_history is not None:
        schema = schema.with_max_history(configuration.settings.max_history)
    options, images = configuration.options, None
    path = images_path(configuration)
    if configuration.model.takes_pixels:
        if not pathlib.Path(path).is_dir():
            raise InputError(f"image_dir={path}: no such folder")
        images = ImageInput((options.image_size, options.image_size, 3))
    elif path is not None:
        store = FeatureMapStore.open(path)
        images = ImageInput(store.shape, store.channel_mean, store.channel_std)
    if getattr(options, "projection", None) == "pca":
        options = dataclasses.replace(options, projection="trainable")
    build(configuration.model(schema, options, images))
