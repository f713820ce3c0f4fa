"""The training loop: epochs with validation, early stopping and checkpoints.

Keras' `fit` does not take `ParameterServerStrategy`, fails with several workers, and
goes on after an interruption with other data than were left. This loop calls
`Model.train_step` and Keras' callbacks as `fit` does, under every strategy.
"""

import pathlib
import shutil
import time
from contextlib import nullcontext

import keras
import pandas as pd

from hccm_tf.atomic import new_file
from hccm_tf.metrics import evaluate_predictions
from hccm_tf.training.callbacks import StopOnNonFinite
from hccm_tf.training.checkpoints import restore_checkpoint, save_checkpoint
from hccm_tf.training.preemption import Preempted, Preemption

SAVE_SECONDS = 600  # between checkpoints within an epoch


def train(trainer, schema, epochs, patience, run_dir=None, resume=False, writes=True):
    """Trains until the validation AUC stops rising and keeps the best weights.

    Args:
        trainer: `hccm_tf.training.synchronous.SynchronousTrainer` or
            `hccm_tf.training.parameter_servers.ParameterServerTrainer`.
        schema: the data's `Schema`, for its `unsampled`.
        epochs: number of passes at most; 0 leaves the model as it is.
        patience: number of epochs without a better validation AUC before it stops.
        run_dir: folder for `history.csv` with a row for each epoch, TensorBoard logs
            and `checkpoints`, one after each epoch and every `SAVE_SECONDS`; `None`
            writes nothing.
        resume: whether to go on from the newest checkpoint in `run_dir`. On one device
            the result is that of a run without an interruption, bit for bit.
        writes: whether this process is the one of its cluster that writes.

    Returns:
        dict `{"seconds", "epochs"}`; the time is that of training steps, without
        validation.

    Raises:
        FloatingPointError: if the loss is not finite; names the step.
        InputError: if the disk is full, no checkpoint can be read, or the processes of
            a cluster would not begin alike.
        Preempted: after SIGTERM, when a checkpoint is written.
    """
    model = trainer.model
    with trainer.strategy.scope():
        model.optimizer.build(model.trainable_variables)
    stopping = keras.callbacks.EarlyStopping(
        "val_auc", mode="max", patience=patience, restore_best_weights=True
    )
    folder = pathlib.Path(run_dir) if run_dir is not None else None
    callbacks = _callbacks(trainer, stopping, epochs, folder if writes else None)
    callbacks.on_train_begin()
    state = {"epoch": 0, "steps": 0, "seconds": 0.0, "history": [], "stopped": False}
    restored = None
    if resume:
        restored = restore_checkpoint(folder / "checkpoints", model, writes)
    if restored is not None:
        state, stopping.best_weights = restored
        if state.pop("steps_of_epoch") != trainer.steps and state["steps"]:
            # Of another cluster, whose steps are others.
            print(f"epoch {state['epoch']} begins again, with {trainer.steps} steps")
            state["steps"] = 0
        stopping.best, stopping.best_epoch, stopping.wait = state.pop("stopping")
    elif folder is not None and writes:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    trainer.check_agreement([state[name] for name in ("epoch", "steps", "stopped")])

    def save():
        if folder is not None and writes:
            progress = stopping.best, stopping.best_epoch, stopping.wait
            content = {**state, "stopping": progress, "steps_of_epoch": trainer.steps}
            best = stopping.best_weights
            with trainer.strategy.scope():
                save_checkpoint(folder / "checkpoints", model, content, best)

    with Preemption(raises=writes) as preemption:
        try:
            while state["epoch"] < epochs and not state["stopped"]:
                _train_epoch(trainer, state, callbacks, preemption, save)
                with preemption.at_once():
                    frame = trainer.predict("validation")
                _end_epoch(trainer, schema, state, callbacks, frame)
                if folder is not None and writes:
                    with new_file(folder / "history.csv") as file:
                        pd.DataFrame(state["history"]).to_csv(file, index=False)
                save()
                preemption.check()
        except Preempted:
            save()
            raise
    callbacks.on_train_end()
    return {"seconds": state["seconds"], "epochs": state["epoch"]}


def _callbacks(trainer, stopping, epochs, folder):
    callbacks = [StopOnNonFinite(), stopping]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        callbacks.append(keras.callbacks.TensorBoard(folder / "logs"))
    return keras.callbacks.CallbackList(
        callbacks,
        add_progbar=True,
        model=trainer.model,
        epochs=epochs,
        steps=trainer.steps,
        verbose=1,
    )


def _train_epoch(trainer, state, callbacks, preemption, save):
    """Trains the steps of an epoch that are left."""
    callbacks.on_epoch_begin(state["epoch"])
    if not state["steps"]:
        trainer.model.reset_metrics()
    steps = trainer.train_epoch(state["epoch"], state["steps"])
    saved = time.monotonic()
    while state["steps"] < trainer.steps:
        begin = time.perf_counter()
        callbacks.on_train_batch_begin(state["steps"])
        with preemption.at_once() if trainer.interruptible else nullcontext():
            logs = next(steps)
        callbacks.on_train_batch_end(state["steps"], logs)
        state["steps"] += 1
        state["seconds"] += time.perf_counter() - begin
        preemption.check()
        if time.monotonic() > saved + SAVE_SECONDS:
            save()
            saved = time.monotonic()


def _end_epoch(trainer, schema, state, callbacks, frame):
    """Validates an epoch and counts it."""
    ctr = schema.unsampled(frame.ctr)
    metrics = evaluate_predictions(frame.label, ctr, frame.user_key)
    logs = {"loss": trainer.epoch_loss()}
    logs.update({f"val_{name}": metrics[name] for name in ("auc", "gauc", "log_loss")})
    callbacks.on_epoch_end(state["epoch"], logs)
    state["history"].append({"epoch": state["epoch"], **logs})
    state["epoch"], state["steps"] = state["epoch"] + 1, 0
    state["stopped"] = bool(trainer.model.stop_training)
