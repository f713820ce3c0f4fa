"""Trains a configuration: from folders to a trained model."""

import dataclasses
import functools
import pathlib
import tempfile
from contextlib import nullcontext

import keras
import tensorflow as tf

from hccm_tf.backend import require_tensorflow
from hccm_tf.data.dataset import Batches
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.labels import missing_label
from hccm_tf.data.shard_check import checked
from hccm_tf.errors import InputError
from hccm_tf.metrics import evaluate_frame
from hccm_tf.models.cscnn import CSCNN
from hccm_tf.models.ensemble import EnsembleLoss
from hccm_tf.optimizers import LazyAdam
from hccm_tf.run_folder import RunFolder
from hccm_tf.runs import TrainedModel
from hccm_tf.training.beginning import begin
from hccm_tf.training.evaluation import infer_function, predict
from hccm_tf.training.images import measure, open_images, with_names_of
from hccm_tf.training.loop import run_epochs
from hccm_tf.training.parameter_servers import ParameterServerTrainer
from hccm_tf.training.pretraining import begin_cnn, check_pretraining
from hccm_tf.training.strategies import has_parameter_servers, is_chief, num_tasks
from hccm_tf.training.synchronous import SynchronousTrainer
from hccm_tf.training.trainer import Trainer
from hccm_tf.training.warm_start import (
    check_not_changed,
    check_same_features,
    check_same_model,
    started_schema,
    warm_start,
)

NO_TRAINING = {"seconds": 0.0, "epochs": 0}


@dataclasses.dataclass
class FittedModel:
    """A trained model with the data that it was trained on.

    Args:
        trained: `TrainedModel`.
        batches: `Batches` of its data folder, as the model is shown them; `None` opens
            them when they are needed.
        training: dict `{"seconds", "epochs"}` of the training steps.
        trainer: `Trainer` that trained it, whose processes predict that folder; `None`
            where nothing was trained. It is left out where this is pickled.
    """

    trained: TrainedModel
    batches: Batches | None = None
    training: dict = dataclasses.field(default_factory=lambda: dict(NO_TRAINING))
    trainer: Trainer | None = None

    def __getstate__(self):
        return vars(dataclasses.replace(self, trainer=None))

    @functools.cached_property
    def _infer(self):
        return infer_function(self.trained.keras_model)

    def batches_of(self, data_dir=None):
        """`Batches` of a data folder; by default of the one that it was trained on."""
        own = self.trained.configuration.data_dir
        if data_dir in (None, own):
            if self.batches is None:
                self.batches = open_batches(self.trained, own)
            return self.batches
        if self.batches is None:
            return open_batches(self.trained, data_dir)
        images = with_names_of(self.batches.images, data_dir)
        return dataclasses.replace(self.batches, data_dir=data_dir, images=images)

    def moved(self, data_dir):
        """The same model, whose data folder is now elsewhere."""
        told = dataclasses.replace(self.trained.configuration, data_dir=data_dir)
        trained = dataclasses.replace(self.trained, configuration=told)
        batches = self.batches
        if batches is not None:
            batches = dataclasses.replace(batches, data_dir=data_dir)
        return dataclasses.replace(self, trained=trained, batches=batches, trainer=None)

    def predictions(self, split, data_dir=None, batch_size=None):
        """Predicts a split; data frame `row, user_key, label, weight, ctr`.

        An impression a row, in the data's order; `row` is its number in the log.

        Args:
            split: its name.
            data_dir: another data folder; by default that of `batches`.
            batch_size: impressions in a batch; by default that of `batches`.
        """
        batches = self.batches_of(data_dir)
        size = batch_size or batches.batch_size
        if size != batches.batch_size:
            batches = dataclasses.replace(batches, batch_size=size)
        with checked(batches.images), DataFolder(batches.data_dir).report_damage():
            if self.trainer is not None and batches is self.batches:
                frame = self.trainer.predict(split)
            else:
                frame = predict(self._infer, batches, split)
        return frame.assign(ctr=self.trained.schema.unsampled(frame.ctr))

    def evaluate(self, split, **arguments):
        """Metrics of `predictions`, see `hccm_tf.metrics.evaluate_frame`."""
        return evaluate_frame(self.predictions(split, **arguments))


def fit(configuration, strategy=None):
    """Trains on split `train` and keeps the epoch that is best on `validation`.

    Args:
        configuration: `Configuration`.
        strategy: `tf.distribute.Strategy` of `make_strategy`, made before TensorFlow
            does anything else; `None` for one device.

    Returns:
        `FittedModel`.

    Raises:
        InputError: names the file, column, row or argument to mend.
        FloatingPointError: if the loss is not finite; names the step.
    """
    require_tensorflow(keras.config.backend())
    epochs, run_dir = configuration.settings.epochs, configuration.run_dir
    if not epochs and configuration.warm_start_from is None:
        raise InputError("epochs=0: it trains nothing and needs warm_start_from")
    if configuration.resume and run_dir is None:
        raise InputError("resume: the run_dir in which to go on is missing")
    check_pretraining(configuration)
    trained, batches, started = prepare(configuration)
    if not epochs:
        return FittedModel(trained, batches)
    return _train(configuration, trained, batches, started, strategy)


def run_in_training(configuration, strategy=None):
    """`RunFolder.training` of a configuration, in the process that writes.

    Around `fit` and what a run leaves after it. In other processes, and without a
    `run_dir`, it does nothing.
    """
    writes = strategy is None or is_chief(strategy)
    if configuration.run_dir is None or not writes:
        return nullcontext()
    return RunFolder(configuration.run_dir).training(configuration.resume)


def prepare(configuration):
    """What is there before the first step.

    Args:
        configuration: `Configuration`.

    Returns:
        `(trained, batches, started)`: `TrainedModel` with new weights or, without
        epochs, that of `warm_start_from`; `Batches`; and the `TrainedModel` of
        `warm_start_from`, `None` without.

    Raises:
        InputError: if folders are missing or do not fit each other.
    """
    settings, started = configuration.settings, None
    schema = DataFolder(configuration.data_dir).schema()
    if configuration.warm_start_from is not None:
        started = TrainedModel.load(configuration.warm_start_from)
        check_same_model(configuration.model, started)
        check_same_features(schema, started.schema)
    if not settings.epochs:
        check_not_changed(configuration, started)
        trained = dataclasses.replace(started, configuration=configuration)
        return trained, open_batches(trained, configuration.data_dir), started
    # Only now: a model that is loaded draws random numbers too.
    keras.utils.set_random_seed(settings.seed)
    if settings.max_history is not None:
        schema = schema.with_max_history(settings.max_history)
    if started is not None:
        schema = started_schema(schema, started.schema, configuration.warm_start)
    store, tell_category = open_images(configuration, schema, started)
    images, options = measure(configuration, store)
    definition = configuration.model(schema, options, images)
    trained = TrainedModel(
        build(definition),
        definition,
        dataclasses.replace(configuration, options=options),
        None if store is None else store.cnn,
    )
    return trained, _batches(trained, store, tell_category), started


def open_batches(trained, data_dir):
    """`Batches` of a data folder as a trained model is shown them.

    Raises:
        InputError: if there are no images, or those of another catalogue or CNN.
    """
    configuration = dataclasses.replace(trained.configuration, data_dir=data_dir)
    trained = dataclasses.replace(trained, configuration=configuration)
    return _batches(trained, *open_images(configuration, trained.schema, trained))


def _batches(trained, store, tell_category):
    settings = trained.configuration.settings
    return Batches(
        trained.configuration.data_dir,
        trained.schema,
        settings.batch_size,
        store,
        trained.definition.sides,
        settings.group_by_item,
        tell_category,
        settings.seed,
    )


def build(definition):
    """A new model; `InputError` if its options contradict each other or the schema."""
    try:
        return definition.build()
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"model {definition.name}: {error}") from error


def _train(configuration, trained, batches, started, strategy):
    settings, model = configuration.settings, trained.keras_model
    writes = strategy is None or is_chief(strategy)
    if configuration.run_dir is not None and writes:
        begin(configuration, batches.images)
    if started is not None:
        warm_start(trained, started, configuration.warm_start)
    elif isinstance(trained.definition, CSCNN):
        begin_cnn(trained, batches)
    trainer = _make_trainer(trained, batches, strategy)
    # In a cluster the same errors tell of lost processes.
    report = DataFolder(configuration.data_dir).report_damage()
    with checked(batches.images) as check, nullcontext() if strategy else report:
        training = run_epochs(
            trainer,
            trained.schema,
            settings.epochs,
            settings.patience,
            configuration.run_dir,
            configuration.resume,
            writes,
            selection=_selection(configuration.data_dir, writes),
            check=check,
        )
    if strategy is not None:
        _copy_weights(trainer.model, model)
    return FittedModel(trained, batches, training, trainer)


def _selection(data_dir, writes):
    """The metric that the best epoch is chosen by; said where it is not AUC."""
    lacks = missing_label(DataFolder(data_dir), "validation")
    if lacks and writes:
        print(f"{lacks}; the best epoch is the one of the lowest log loss")
    return "log_loss" if lacks else "auc"


def _make_trainer(trained, batches, strategy):
    """What trains the model or, under a strategy, a model like it."""
    model, definition = trained.keras_model, trained.definition
    scope = strategy or tf.distribute.get_strategy()
    on_servers = has_parameter_servers(scope)
    with scope.scope():
        if strategy is not None:
            shards = num_tasks("ps") if on_servers else 1
            twin = type(definition)(
                definition.schema, definition.options, definition.images, shards
            )
            model = twin.build()
            _copy_weights(trained.keras_model, model)
        # XLA on CPU is slower for convolutions, and the batches' shapes vary.
        model.compile(
            LazyAdam(trained.configuration.settings.learning_rate),
            # An impression counts as its weight, what pads a request not at all.
            EnsembleLoss(reduction="mean_with_sample_weight"),
            jit_compile=False,
        )
    kind = ParameterServerTrainer if on_servers else SynchronousTrainer
    return kind(model, scope, batches)


def _copy_weights(source, target):
    """Gives a model the weights of one with the same layers, under any strategy."""
    with tempfile.TemporaryDirectory(prefix="hccm_tf-") as folder:
        path = pathlib.Path(folder) / "model.weights.h5"
        source.save_weights(path)
        target.load_weights(path)
