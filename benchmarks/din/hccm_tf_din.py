"""This package's `din` with Keras' `fit`, compiled as `hccm_tf.training` does."""

import sys

import keras
import tensorflow as tf
from workload import (
    ATTENTION_HIDDEN_UNITS,
    CANDIDATE,
    EMBEDDING_DIM,
    HIDDEN_UNITS,
    LEARNING_RATE,
    SIZES,
    serve,
    stacked,
)

from hccm_tf.data.feature import Feature
from hccm_tf.data.feature_kinds import RESERVED
from hccm_tf.data.schema import Schema
from hccm_tf.models import build_model
from hccm_tf.optimizers import LazyAdam


def make_train(batches, activation):
    features = [
        Feature(name, "integer", size=size - RESERVED, candidate=name in CANDIDATE)
        for name, size in SIZES.items()
    ]
    features.append(Feature("history_item_id", "sequence", shares="item_id"))
    model = build_model(
        "din",
        Schema(tuple(features)),
        embedding_dim=EMBEDDING_DIM,
        hidden_units=HIDDEN_UNITS,
        attention_hidden_units=ATTENTION_HIDDEN_UNITS,
        attention_activation=activation,
        id_dropout=0,
    )
    # The last argument: `Adam` shows what `LazyAdam` contributes.
    optimizer = {"LazyAdam": LazyAdam, "Adam": keras.optimizers.Adam}[sys.argv[-1]]
    loss = keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight")
    model.compile(optimizer(LEARNING_RATE), loss, jit_compile=False)
    features, history, _, label = stacked(batches)
    inputs = features | {"history_item_id": history, "candidate_mask": label >= 0}
    dataset = tf.data.Dataset.from_tensor_slices(
        (inputs, label[..., None], (label >= 0).astype("float32"))
    )
    dataset = dataset.repeat().prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)

    def train(steps):
        model.fit(dataset, steps_per_epoch=steps, verbose=0)

    return train, model.count_params()


serve(make_train, by_request=True)
