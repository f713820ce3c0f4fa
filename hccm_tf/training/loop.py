"""The training loop: epochs with validation, early stopping and checkpoints.

Keras' `fit` does not take `ParameterServerStrategy`, fails with several workers, and
goes on after an interruption with other data than were left. This loop calls
`Model.train_step` and Keras' callbacks as `fit` does, under every strategy.
"""

import dataclasses
import sys
import time

import keras
import pandas as pd

from hccm_tf.atomic import new_file
from hccm_tf.errors import InputError
from hccm_tf.metrics import evaluate_frame
from hccm_tf.run_folder import RunFolder
from hccm_tf.training.callbacks import StepLog, StopOnDamage, StopOnNonFinite
from hccm_tf.training.checkpoints import restore_checkpoint, save_checkpoint
from hccm_tf.training.preemption import Preempted, Preemption

SAVE_SECONDS = 600  # between checkpoints within an epoch


@dataclasses.dataclass
class Progress:
    """Where a run is.

    Attributes:
        epoch: number of epochs that are done.
        steps: number of steps of the next one that are done.
        seconds: of training steps so far, without validation.
        history: list of dicts, the metrics of each epoch.
        stopped: whether early stopping has ended the run.
    """

    epoch: int = 0
    steps: int = 0
    seconds: float = 0.0
    history: list = dataclasses.field(default_factory=list)
    stopped: bool = False


def run_epochs(
    trainer,
    schema,
    epochs,
    patience,
    run_dir=None,
    resume=False,
    writes=True,
    selection="auc",
    check=None,
):
    """Trains until a validation metric stops improving and keeps the best weights.

    Args:
        trainer: `hccm_tf.training.trainer.Trainer`.
        schema: the data's `Schema`, for its `unsampled`.
        epochs: number of passes at most; 0 leaves the model as it is.
        patience: number of epochs without a better one before it stops.
        run_dir: folder of the run, which gets the history of its epochs, TensorBoard
            logs and checkpoints, one after each epoch and every `SAVE_SECONDS`; `None`
            writes nothing. See `hccm_tf.run_folder.RunFolder.training`.
        resume: whether to go on from the run's newest checkpoint, if it has one. On one
            device the result is that of a run without an interruption, bit for bit.
        writes: whether this process is the one of its cluster that writes.
        selection: the metric, `"auc"` or `"log_loss"`.
        check: `hccm_tf.data.shard_check.BackgroundCheck` that ends it, or `None`.

    Returns:
        dict `{"seconds", "epochs"}`; the time is that of training steps, without
        validation.

    Raises:
        FloatingPointError: if the loss is not finite; names the step.
        InputError: if the disk is full, no checkpoint can be read, or the processes of
            a cluster would not begin alike.
        Preempted: after SIGTERM, when a checkpoint is written.
    """
    run = None if run_dir is None else RunFolder(run_dir)
    with trainer.strategy.scope():
        trainer.model.optimizer.build(trainer.model.trainable_variables)
    stopping = keras.callbacks.EarlyStopping(
        f"val_{selection}",
        mode="max" if selection == "auc" else "min",
        patience=patience,
        restore_best_weights=True,
    )
    callbacks = [StopOnNonFinite(), stopping]
    if check is not None:
        callbacks.insert(0, StopOnDamage(check))
    callbacks = _callbacks(trainer, callbacks, epochs, run if writes else None)
    callbacks.on_train_begin()
    progress = Progress()
    if resume:
        progress = _restore(trainer, stopping, run, writes)
    trainer.check_agreement([progress.epoch, progress.steps, progress.stopped])

    def save():
        if run is not None and writes:
            _save(trainer, stopping, progress, run)

    with Preemption(raises=writes) as preemption:
        try:
            while progress.epoch < epochs and not progress.stopped:
                _train_epoch(trainer, progress, callbacks, preemption, save)
                frame = trainer.predict("validation", preemption.check)
                _end_epoch(trainer, schema, progress, callbacks, frame)
                save()
                preemption.check()
        except Preempted:
            save()
            raise
    callbacks.on_train_end()
    return {"seconds": progress.seconds, "epochs": progress.epoch}


def _callbacks(trainer, callbacks, epochs, run):
    if run is not None:
        callbacks.append(keras.callbacks.TensorBoard(run.logs, write_graph=False))
        callbacks.append(StepLog(run.step_logs))
    return keras.callbacks.CallbackList(
        callbacks,
        add_progbar=True,
        model=trainer.model,
        epochs=epochs,
        steps=trainer.steps,
        # In a log a line an epoch, without a bar's steps.
        verbose=1 if sys.stdout.isatty() else 2,
    )


def _restore(trainer, stopping, run, writes):
    """Gives trainer and callback the newest checkpoint, if any; the run's progress."""
    restored = restore_checkpoint(run.checkpoints, trainer.model, writes)
    if restored is None:
        return Progress()
    state, stopping.best_weights = restored
    try:
        progress = Progress(**state["progress"])
        stopping.best, stopping.best_epoch, stopping.wait = state["stopping"]
        trainer.losses[:] = state["losses"]
        steps_of_epoch = state["steps_of_epoch"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{run.checkpoints}: the newest checkpoint does not say where the run was "
            f"({error!r}); remove it to go on from the one before"
        ) from error
    if steps_of_epoch != trainer.steps and progress.steps:
        # Of another cluster, whose steps are others.
        print(f"epoch {progress.epoch} begins again, with {trainer.steps} steps")
        progress.steps = 0
    return progress


def _save(trainer, stopping, progress, run):
    """Writes the history and a checkpoint."""
    if progress.history:
        with new_file(run.history) as file:
            pd.DataFrame(progress.history).to_csv(file, index=False)
    state = {
        "progress": dataclasses.asdict(progress),
        "stopping": [stopping.best, stopping.best_epoch, stopping.wait],
        "losses": trainer.losses,
        "steps_of_epoch": trainer.steps,
    }
    with trainer.strategy.scope():
        save_checkpoint(run.checkpoints, trainer.model, state, stopping.best_weights)


def _train_epoch(trainer, progress, callbacks, preemption, save):
    """Trains the steps of an epoch that are left."""
    callbacks.on_epoch_begin(progress.epoch)
    if not progress.steps:
        trainer.model.reset_metrics()
    steps = trainer.train_epoch(progress.epoch, progress.steps, preemption.check)
    saved = time.monotonic()
    while progress.steps < trainer.steps:
        begin = time.perf_counter()
        callbacks.on_train_batch_begin(progress.steps)
        logs = next(steps)
        callbacks.on_train_batch_end(progress.steps, logs)
        progress.steps += 1
        progress.seconds += time.perf_counter() - begin
        preemption.check()
        if time.monotonic() > saved + SAVE_SECONDS:
            save()
            saved = time.monotonic()


def _end_epoch(trainer, schema, progress, callbacks, frame):
    """Validates an epoch and counts it."""
    metrics = evaluate_frame(frame.assign(ctr=schema.unsampled(frame.ctr)))
    logs = {"loss": trainer.epoch_loss()}
    logs.update({f"val_{name}": metrics[name] for name in ("auc", "gauc", "log_loss")})
    callbacks.on_epoch_end(progress.epoch, logs)
    progress.history.append({"epoch": progress.epoch, **logs})
    progress.epoch, progress.steps = progress.epoch + 1, 0
    progress.stopped = bool(trainer.model.stop_training)
