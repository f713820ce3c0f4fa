"""What the CNN of `cscnn` starts from: pretrained weights, then category labels."""

import pathlib

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from hccm_tf.data.catalogue import image_categories
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.models.attended_backbone import copy_weights
from hccm_tf.models.cscnn import CSCNN

BATCH_SIZE = 128


def check_pretraining(configuration):
    """Raises an `InputError` for what could not begin once all photos are decoded.

    That is weights that are not there, and processes that would pretrain different
    CNNs.

    Args:
        configuration: `Configuration`.
    """
    begins = configuration.warm_start_from is None
    if not (begins and issubclass(configuration.model, CSCNN)):
        return
    options = configuration.options
    weights = options.cnn_weights
    if weights not in ("imagenet", "random") and not pathlib.Path(weights).is_file():
        raise InputError(
            f"cnn_weights={weights}: no such file; imagenet and random need none"
        )
    if options.pretrain_epochs and configuration.strategy == "multi_worker_mirrored":
        raise InputError(
            "pretrain_epochs: with strategy=multi_worker_mirrored each worker would "
            "pretrain a CNN of its own; pretrain in a run on one device, and give that "
            "as warm_start_from, with warm_start=all"
        )


def begin_cnn(trained, batches):
    """Gives the CNN of `cscnn` what its options say that it begins with.

    A run that is resumed replaces it by a checkpoint, if there is one.

    Args:
        trained: `TrainedModel` of `cscnn` with new weights.
        batches: `Batches` that it is trained on.
    """
    definition, options = trained.definition, trained.definition.options
    load_cnn_weights(trained.keras_model, definition)
    if options.pretrain_epochs:
        settings = trained.configuration.settings
        catalogue = DataFolder(batches.data_dir).catalogue()
        accuracy = pretrain(
            trained.keras_model,
            batches.images,
            image_categories(trained.schema, catalogue),
            options.pretrain_epochs,
            settings.learning_rate,
            settings.seed,
        )
        print(f"the CNN names the category of {accuracy:.1%} of the images")


def load_cnn_weights(model, definition):
    """Gives the CNN of a model its backbone's weights; attentions stay as they are.

    Args:
        model: `keras.Model` of `definition`.
        definition: `CSCNN`, whose `cnn_weights` are `"imagenet"`, `"random"`, which
            changes nothing, or a path, see `hccm_tf.models.backbones.load_backbone`.

    Raises:
        InputError: if the weights cannot be had.
    """
    weights = definition.options.cnn_weights
    if weights != "random":
        copy_weights(definition.load_backbone(weights), _cnn(model))


def pretrain(model, images, items, epochs, learning_rate, seed):
    """Trains the CNN of a model to tell the categories of a catalogue's images apart.

    Its pooled output gets a softmax head, which is dropped afterwards. A CNN with
    category attention is told no category (index 0, whose prior is zero): it would
    read the label off it.

    Args:
        model: `keras.Model` of `cscnn`.
        images: `ImageFolder`.
        items: `(image_keys, category)`: int64 and int32 `[N]`, each item's image and
            category index.
        epochs: passes over the images.
        learning_rate: of Adam.
        seed: of the images' order.

    Returns:
        Accuracy over the last epoch, in training.

    Raises:
        InputError: if no image of a known category is there, or the loss is not
            finite.
    """
    classes = int(items[1].max()) + 1
    classifier = _classifier(_cnn(model), images.shape, classes)
    classifier.compile(
        keras.optimizers.Adam(learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    history = classifier.fit(
        _labelled_images(images, items, seed),
        epochs=epochs,
        shuffle=False,
        verbose=2,
        callbacks=[keras.callbacks.TerminateOnNaN()],
    ).history
    if not np.isfinite(history["loss"][-1]):
        raise InputError("pretrain_epochs: the loss is not finite; lower learning_rate")
    return history["accuracy"][-1]


def _labelled_images(images, items, seed):
    """Shuffled batches of images and their categories, as `pretrain` takes them."""
    image_keys, category = items
    rows = images.find(image_keys).numpy()
    pairs = np.stack([rows, category], axis=1)[(rows > 0) & (category > 1)]
    pairs = np.unique(pairs, axis=0)
    if not len(pairs):
        raise InputError("pretrain_epochs: no image of a category of the schema")

    def to_batch(pair):
        return images.gather(pair[:, 0]), pair[:, 1]

    dataset = tf.data.Dataset.from_tensor_slices(pairs.astype(np.int64))
    dataset = dataset.shuffle(len(pairs), seed=seed).batch(BATCH_SIZE)
    return dataset.map(to_batch, num_parallel_calls=2).prefetch(2)


def _cnn(model):
    return model.get_layer("image_encoder").get_layer("cnn")


def _classifier(cnn, shape, classes):
    pixels = keras.Input(shape, dtype="uint8")
    unknown = ops.zeros_like(pixels[:, 0, 0, 0], dtype="int32")
    maps = cnn([ops.cast(pixels, "float32"), unknown])
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    head = keras.layers.Dense(classes, activation="softmax", dtype="float32")
    return keras.Model(pixels, head(pooled))
