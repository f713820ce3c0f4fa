"""The training loop: Keras' `fit` with validation, early stopping and backups."""

import pathlib
import shutil

import keras

from hccm_tf.optimizers import LazyAdam
from hccm_tf.training.callbacks import (
    StopOnNonFinite,
    TrainingTime,
    ValidationMetrics,
)


def train(
    model,
    train_set,
    validation_set,
    schema,
    learning_rate,
    epochs,
    patience,
    run_dir=None,
    resume=False,
):
    """Trains until the validation AUC stops rising and keeps the best weights.

    Args:
        model: of `hccm_tf.models.build_model`.
        train_set: `tf.data.Dataset` of `(inputs, label, user)`, finite.
        validation_set: likewise.
        schema: the data's `Schema`.
        learning_rate: of `hccm_tf.optimizers.LazyAdam`.
        epochs: number of passes at most; 0 leaves the model as it is.
        patience: number of epochs without a better validation AUC before it stops.
        run_dir: folder for `history.csv` with a row for each epoch, TensorBoard logs
            and the backup; `None` writes nothing.
        resume: whether to go on with the epoch after the backup's in `run_dir`. Early
            stopping then starts anew: an epoch before the backup is not the best one.

    Returns:
        dict `{"seconds", "epochs"}` of this call; the time is that of training steps,
        without validation.

    Raises:
        FloatingPointError: if the loss is not finite; names the step.
    """
    # XLA on CPU is slower for convolutions, and the batches' shapes vary.
    model.compile(
        LazyAdam(learning_rate),
        loss="binary_crossentropy",
        jit_compile=False,
    )
    timer = TrainingTime()
    callbacks = [
        timer,
        StopOnNonFinite(),
        ValidationMetrics(validation_set, schema),
        keras.callbacks.EarlyStopping(
            "val_auc", mode="max", patience=patience, restore_best_weights=True
        ),
    ]
    if run_dir is not None:
        backup = pathlib.Path(run_dir) / "backup"
        epochs_file = pathlib.Path(run_dir) / "history.csv"
        epochs_file.parent.mkdir(parents=True, exist_ok=True)
        if not resume:
            shutil.rmtree(backup, ignore_errors=True)
        callbacks.append(keras.callbacks.CSVLogger(epochs_file, append=resume))
        callbacks.append(keras.callbacks.BackupAndRestore(backup))
        callbacks.append(keras.callbacks.TensorBoard(pathlib.Path(run_dir) / "logs"))
    history = model.fit(
        train_set.map(lambda inputs, label, user: (inputs, label)),
        epochs=epochs,
        callbacks=callbacks,
        shuffle=False,
    )
    return {
        "seconds": timer.seconds,
        "epochs": len(history.epoch),
    }
