"""The images that a configuration's model takes, opened and checked."""

import dataclasses
import pathlib

import numpy as np
import pandas as pd

from hccm_tf.data.feature_maps import SKIPPED, FeatureMapStore
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.ids import NO_IMAGE
from hccm_tf.data.image_folder import ImageFolder
from hccm_tf.data.pca import fit_pca
from hccm_tf.data.shuffled_categories import shuffled_categories
from hccm_tf.errors import InputError
from hccm_tf.images.places import check_image_dir
from hccm_tf.models import ImageInput
from hccm_tf.models.options import CNNOptions
from hccm_tf.run_folder import RunFolder

NEEDED = {
    "feature_maps": "the folder that extract_feature_maps makes of the photos",
    "image_dir": "the folder of the photos",
}
# Below this share of the catalogue's images, a store belongs to another catalogue.
MIN_IMAGES_FOUND = 0.5


def images_path(configuration):
    """Where the model's images are, `None` for a model without.

    Raises:
        InputError: if the configuration does not say.
    """
    if not configuration.model.has_images:
        return None
    path = getattr(configuration, configuration.images_argument)
    if path is None:
        raise InputError(
            f"{configuration.images_argument}: model {configuration.model.name} needs "
            f"{NEEDED[configuration.images_argument]}"
        )
    return path


def open_images(configuration, schema, started=None):
    """What a model is shown and told of images.

    Args:
        configuration: `Configuration`.
        schema: `Schema` of the model.
        started: `TrainedModel` whose images are to be standardised alike, or `None`.

    Returns:
        `(store, tell_category)`: the `ImageStore`, `None` for a model without images,
        with its images dealt out to others if the settings say so; and the function of
        `shuffled_categories` if they say that, else `None`.

    Raises:
        InputError: if there are no images, or those of another catalogue or CNN.
    """
    path, tell_category = images_path(configuration), None
    store = None if path is None else _open(configuration, path)
    if started is not None:
        check_same_cnn(store, started)
    if store is None:
        return None, None
    if started is not None:
        images = started.definition.images
        store = store.standardised_as(images.channel_mean, images.channel_std)
    settings = configuration.settings
    if settings.shuffle_images:
        store = store.shuffled(settings.seed)
    if settings.shuffle_categories:
        tell_category = shuffled_categories(
            configuration.data_dir, schema, store, settings.seed
        )
    return store, tell_category


def _open(configuration, path):
    keys, names = _images(configuration.data_dir)
    if configuration.model.takes_pixels:
        images = names.unique().to_pylist()
        check_image_dir(images, path)
        store = ImageFolder.open(
            path,
            images,
            configuration.options.image_size,
            _shared_file(configuration),
            **configuration.settings.allowed,
        )
        missing = "are missing or not decodable"
        if store.skipped:
            missing += ", such as {}: {}".format(*next(iter(store.skipped.items())))
    else:
        store = FeatureMapStore.open(path).with_names(keys, names)
        missing = "have no feature map"
        skipped = pathlib.Path(path, SKIPPED)
        # A copy from an object store is without it; it may name none.
        if skipped.exists() and len(skipped.read_text().splitlines()) > 1:
            missing += f"; {skipped} names those that could not be read"
        if store.shape[:2] == (1, 1) and isinstance(configuration.options, CNNOptions):
            print(
                f"the images are vectors of {store.shape[-1]} values: the trainable "
                "CNN is an MLP, see hccm_tf.layers.HybridCNN"
            )
    keys = pd.unique(keys)
    found = int((store.find(keys).numpy() > 0).sum())
    if found < MIN_IMAGES_FOUND * len(keys):
        raise InputError(
            f"{configuration.images_argument}={path}: {len(keys) - found} of the "
            f"{len(keys)} images of data_dir={configuration.data_dir} {missing}; take "
            "what has that catalogue's"
        )
    if found < len(keys):
        print(f"{len(keys) - found} of {len(keys)} images {missing}")
    return store


def _images(data_dir):
    """Keys, int64 array, and names, Arrow column, of the images of a catalogue."""
    catalogue = DataFolder(data_dir).catalogue()
    has_image = np.flatnonzero(catalogue["image_key"].to_numpy() != NO_IMAGE)
    catalogue = catalogue.take(has_image)
    return catalogue["image_key"].to_numpy(), catalogue["image"]


def with_names_of(store, data_dir):
    """An `ImageStore` for another data folder; see `ImageStore.with_names`."""
    return store and store.with_names(*_images(data_dir))


def _shared_file(configuration):
    """Where pixels have to be for others than this process; `None` for itself."""
    if configuration.strategy != "parameter_server":
        return None
    if configuration.run_dir is None:
        raise InputError(
            f"run_dir: model {configuration.model.name} needs it with parameter "
            "servers, for the pixels that the workers read"
        )
    return RunFolder(configuration.run_dir).pixels


def check_same_cnn(store, started):
    """Raises an `InputError` if a run's model takes images of another fixed CNN.

    Args:
        store: today's `ImageStore`; `None` for a model without images.
        started: `TrainedModel` of the run.
    """
    old, cnn = started.cnn or {}, {} if store is None else store.cnn
    takes_pixels = started.configuration.model.takes_pixels
    argument = "image_size" if takes_pixels else "feature_maps"
    for name in sorted({*old, *cnn}):
        if old.get(name) != cnn.get(name):
            raise InputError(
                f"{argument}: the {name} is {cnn.get(name)}, that of the run was "
                f"{old.get(name)}; take that of the run"
            )


def measure(configuration, store):
    """What is measured of the images, and the options that follow from it.

    Args:
        configuration: `Configuration`.
        store: the `ImageStore` that the model is shown.

    Returns:
        `(images, options)`: `ImageInput`, `None` without images, and the model's
        options; a projection by PCA has at most as many components as there are.
    """
    options = configuration.options
    if store is None:
        return None, options
    images = ImageInput(store.shape, store.channel_mean, store.channel_std)
    if getattr(options, "projection", None) == "pca":
        mean, components = fit_pca(store, options.image_embedding_dim)
        images = dataclasses.replace(images, pca=(mean, components))
        options = dataclasses.replace(options, image_embedding_dim=len(components))
    return images, options
