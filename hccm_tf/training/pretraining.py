"""What the CNN of `cscnn` starts from: pretrained weights, then category labels."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from hccm_tf.errors import InputError
from hccm_tf.models.attended_backbone import copy_weights
from hccm_tf.models.backbones import load_backbone

BATCH_SIZE = 128


def load_cnn_weights(model, weights, options):
    """Gives the CNN of a model its backbone's weights; attentions stay as they are.

    Args:
        model: `cscnn`, of `build_model`.
        weights: `"imagenet"`, `"random"`, which changes nothing, or a path, see
            `hccm_tf.models.backbones.load_backbone`.
        options: `ModelOptions` of the model.

    Raises:
        InputError: if the weights cannot be had.
    """
    if weights == "random":
        return
    backbone = load_backbone(
        options.cnn_backbone,
        weights,
        options.feature_map_shape[0],
        options.cnn_layer,
        flags="cnn_",
    )
    copy_weights(backbone, _cnn(model))


def pretrain(model, images, image_keys, category, epochs, learning_rate, seed):
    """Trains the CNN of a model to tell the categories of a catalogue's images apart.

    Its pooled output gets a softmax head, which is dropped afterwards. A CNN with
    category attention is told no category (index 0, whose prior is zero): it would
    read the label off it.

    Args:
        model: `cscnn`, of `build_model`.
        images: `ImageFolder`.
        image_keys: int64 `[N]`, one for each item.
        category: int32 `[N]`, category indices.
        epochs: passes over the images.
        learning_rate: of Adam.
        seed: of the images' order.

    Returns:
        Accuracy over the last epoch, in training.

    Raises:
        InputError: if no image of a known category is there, or the loss is not
            finite.
    """
    rows = images.find(image_keys).numpy()
    pairs = np.stack([rows, category], axis=1)[(rows > 0) & (category > 1)]
    pairs = np.unique(pairs, axis=0)
    if not len(pairs):
        raise InputError("--pretrain_epochs: no image of a category of the schema")

    def to_batch(pair):
        return images.gather(pair[:, 0]), pair[:, 1]

    dataset = tf.data.Dataset.from_tensor_slices(pairs.astype(np.int64))
    dataset = dataset.shuffle(len(pairs), seed=seed).batch(BATCH_SIZE)
    dataset = dataset.map(to_batch, num_parallel_calls=2).prefetch(2)
    classifier = _classifier(_cnn(model), images.shape, int(category.max()) + 1)
    classifier.compile(
        keras.optimizers.Adam(learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    history = classifier.fit(
        dataset,
        epochs=epochs,
        shuffle=False,
        verbose=2,
        callbacks=[keras.callbacks.TerminateOnNaN()],
    ).history
    if not np.isfinite(history["loss"][-1]):
        raise InputError(
            "--pretrain_epochs: the loss is not finite; lower --learning_rate"
        )
    return history["accuracy"][-1]


def _cnn(model):
    return model.get_layer("image_encoder").get_layer("cnn")


def _classifier(cnn, shape, classes):
    pixels = keras.Input(shape, dtype="uint8")
    unknown = ops.zeros_like(pixels[:, 0, 0, 0], dtype="int32")
    maps = cnn([ops.cast(pixels, "float32"), unknown])
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    head = keras.layers.Dense(classes, activation="softmax", dtype="float32")
    return keras.Model(pixels, head(pooled))
