"""DeepCTR's DIN (TensorFlow, Keras 2) with Keras' `fit`."""

import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from deepctr.models import DIN
from workload import (
    ATTENTION_HIDDEN_UNITS,
    EMBEDDING_DIM,
    HIDDEN_UNITS,
    ITEMS,
    LEARNING_RATE,
    MAX_HISTORY,
    SIZES,
    serve,
    stacked,
)


def make_train(batches, activation):
    columns = [SparseFeat(n, size, EMBEDDING_DIM) for n, size in SIZES.items()]
    history = SparseFeat("hist_item_id", ITEMS, EMBEDDING_DIM, embedding_name="item_id")
    columns.append(VarLenSparseFeat(history, MAX_HISTORY, length_name="length"))
    model = DIN(
        columns,
        ["item_id"],
        dnn_hidden_units=HIDDEN_UNITS,
        att_hidden_size=ATTENTION_HIDDEN_UNITS,
        att_activation=activation,
        l2_reg_embedding=0,
    )
    model.compile(tf.keras.optimizers.Adam(LEARNING_RATE), "binary_crossentropy")
    features, history, length, label = stacked(batches)
    dataset = tf.data.Dataset.from_tensor_slices(
        (features | {"hist_item_id": history, "length": length}, label[..., None])
    )
    dataset = dataset.repeat().prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)

    def train(steps):
        model.fit(dataset, steps_per_epoch=steps, verbose=0)

    return train, model.count_params()


serve(make_train)
