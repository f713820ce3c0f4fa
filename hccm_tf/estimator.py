"""scikit-learn's interface to the whole path: data folder or data frame → model."""

import contextlib
import json
import pathlib
import tempfile

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from hccm_tf.data.catalogue import image_categories
from hccm_tf.data.dataset import Batches
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.image_folder import ImageFolder
from hccm_tf.data.pca import fit_pca
from hccm_tf.data.schema import Schema
from hccm_tf.data.shuffled_categories import shuffled_categories
from hccm_tf.errors import InputError
from hccm_tf.metrics import evaluate_predictions
from hccm_tf.models import IMAGE_MODELS, PIXEL_MODELS, build_model
from hccm_tf.models.image_encoder import sides
from hccm_tf.models.options import ModelOptions
from hccm_tf.optimizers import LazyAdam
from hccm_tf.preparation.examples import data_frames
from hccm_tf.serving.export import export
from hccm_tf.training.evaluation import predict
from hccm_tf.training.loop import train
from hccm_tf.training.parameter_servers import ParameterServerTrainer
from hccm_tf.training.pretraining import load_cnn_weights, pretrain
from hccm_tf.training.strategies import (
    has_parameter_servers,
    is_chief,
    num_tasks,
)
from hccm_tf.training.synchronous import SynchronousTrainer
from hccm_tf.training.warm_start import (
    save_run,
    started_maps,
    started_schema,
    warm_start,
)

# Below this share of the catalogue's images, a store belongs to another catalogue.
MIN_IMAGES_FOUND = 0.5


class CTREstimator(ClassifierMixin, BaseEstimator):
    """Click-through-rate classifier over image behaviours.

    `X` is a data folder of `tfrecords_tools.build_examples`, or a data frame of
    impressions (`user_id, item_id, timestamp`, `label` unless given as `y`, optionally
    `split`, and context columns), for which `items` gives the catalogue. Histories of
    a data frame are joined point in time; those of later frames also see the clicks
    of the frame that was fitted.

    Args:
        model: one of `hccm_tf.models.MODELS`.
        feature_maps: folder of the feature-map store, for models that take maps.
        items: data frame `item_id, image, category` and attributes; for data frames.
        epochs: number of passes at most; 0 only evaluates what `warm_start_from` gives.
        patience: epochs without a better validation AUC before training stops.
        batch_size: impressions in a batch; in that of each replica or worker.
        learning_rate: of `hccm_tf.optimizers.LazyAdam`.
        seed: of everything random.
        max_history: number of newest clicks used; `None` for all that the data holds.
        shuffle_images: a control: deals the photos out to other items. What a model
            still gains over one without images is then not due to what they show.
        shuffle_categories: a control: the image encoder is told the category of another
            item, always the same one; ids and other features stay.
        image_dir: folder of the images, for `cscnn`.
        image_size: height and width to which `cscnn` resizes an image.
        cnn_weights: of the CNN of `cscnn`: `"imagenet"`, `"random"`, or the path of a
            weights file of the backbone without its top.
        pretrain_epochs: passes over the catalogue's images in which the CNN of `cscnn`
            learns their categories first; like `cnn_weights` not for a warm start,
            which has the run's CNN.
        group_by_item: whether impressions of an item come in the same training batch,
            which then has few images. For `cscnn`, whose step they determine.
        run_dir: folder for logs and checkpoints; `None` writes none.
        resume: whether `fit` goes on from the newest checkpoint in `run_dir`.
        warm_start_from: folder of a run, of `save`, whose weights `fit` begins with.
        warm_start: `"all"` of them, or `"all_but_ids"`, see
            `hccm_tf.training.warm_start`.
        model_options: dict of `hccm_tf.models.ModelOptions`.
        strategy: `tf.distribute.Strategy` of
            `hccm_tf.training.strategies.make_strategy`, made before TensorFlow does
            anything else; `None` for one device. It takes a data folder that all
            processes see, as they see `run_dir`.

    Attributes:
        classes_: `[0, 1]`.
        model_: the trained `keras.Model`.
        schema_: the data's `Schema`.
        validation_metrics_: of the best epoch, which is the one kept.
        examples_per_second_: training steps, without validation.
        training_: dict `{"seconds", "epochs", "parameters"}`, likewise.

    Example:
    ```python
    estimator = CTREstimator("hccm", feature_maps="MAPS", epochs=2)
    estimator.fit("DATA").evaluate("DATA")["auc"]
    estimator.export("saved_models/hccm")
    ```
    """

    def __init__(
        self,
        model="hccm",
        feature_maps=None,
        items=None,
        epochs=5,
        patience=1,
        batch_size=512,
        learning_rate=1e-3,
        seed=0,
        max_history=None,
        shuffle_images=False,
        shuffle_categories=False,
        image_dir=None,
        image_size=64,
        cnn_weights="imagenet",
        pretrain_epochs=0,
        group_by_item=False,
        run_dir=None,
        resume=False,
        warm_start_from=None,
        warm_start="all",
        model_options=None,
        strategy=None,
    ):
        self.model = model
        self.feature_maps = feature_maps
        self.items = items
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.seed = seed
        self.max_history = max_history
        self.shuffle_images = shuffle_images
        self.shuffle_categories = shuffle_categories
        self.image_dir = image_dir
        self.image_size = image_size
        self.cnn_weights = cnn_weights
        self.pretrain_epochs = pretrain_epochs
        self.group_by_item = group_by_item
        self.run_dir = run_dir
        self.resume = resume
        self.warm_start_from = warm_start_from
        self.warm_start = warm_start
        self.model_options = model_options
        self.strategy = strategy

    def fit(self, X, y=None):
        """Trains on split `train`, keeps the epoch that is best on `validation`.

        Args:
            X: data folder or data frame, see the class; of a data frame without
                `split`, the newest tenth is the validation split.
            y: labels of a data frame without the column `label`.

        Returns:
            The estimator.

        Raises:
            InputError: names the file, column, row or flag to mend.
            FloatingPointError: if the loss is not finite; names the step.
        """
        if not self.epochs and self.warm_start_from is None:
            raise InputError("--epochs=0 trains nothing and needs --warm_start_from")
        if self.resume and self.run_dir is None:
            raise InputError("--resume goes on in a run_dir, which is missing")
        data_dir = self._to_data_dir(X, y, fitting=True)
        self._trainer = None
        keras.utils.set_random_seed(self.seed)
        self.classes_ = np.array([0, 1])
        self.schema_ = Schema.load(data_dir)
        if self.max_history is not None:
            self.schema_ = self.schema_.with_max_history(self.max_history)
        start = self.warm_start_from, self.warm_start
        if self.warm_start_from is not None:
            self.schema_ = started_schema(self.schema_, *start, self.epochs > 0)
        options = dict(self.model_options or {})
        self.feature_maps_ = self._tell_category = None
        if self.model in IMAGE_MODELS:
            self.feature_maps_ = self._open_feature_maps(data_dir)
        if self.warm_start_from is not None:
            self.feature_maps_ = started_maps(self.feature_maps_, start[0])
        if self.model in IMAGE_MODELS:
            options.update(
                feature_map_shape=self.feature_maps_.shape,
                channel_mean=self.feature_maps_.channel_mean,
                channel_std=self.feature_maps_.channel_std,
            )
            if self.shuffle_categories:
                self._tell_category = shuffled_categories(
                    data_dir, self.schema_, self.feature_maps_, self.seed
                )
            pooled = self.model == "din_fixed_cnn"
            if pooled and options.get("projection") == "pca":
                options.update(self._pca_options(options))
        try:
            self.model_ = build_model(self.model, self.schema_, **options)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"model {self.model}: {error}") from error
        if self.warm_start_from is not None:
            warm_start(self.model_, self.schema_, *start)
        elif self.model in PIXEL_MODELS:
            self._prepare_cnn(data_dir, ModelOptions(**options))
        trainer = self._make_trainer(data_dir, options)
        # In a cluster the same errors tell of lost processes.
        report = DataFolder(data_dir).report_damage()
        with contextlib.nullcontext() if self.strategy else report:
            run = train(
                trainer,
                self.schema_,
                self.epochs,
                self.patience,
                self.run_dir,
                self.resume,
                self.strategy is None or is_chief(self.strategy),
            )
        if self.strategy is not None:
            _copy_weights(trainer.model, self.model_)
            self._trainer = trainer
        examples = run["epochs"] * DataFolder(data_dir).num_impressions("train")
        self.examples_per_second_ = examples / max(run["seconds"], 1e-9)
        self.training_ = {**run, "parameters": self.model_.count_params()}
        self._data_dir, self._options = data_dir, options
        self.validation_metrics_ = self.evaluate(data_dir, "validation")
        return self

    def predictions(self, X, split="test"):
        """Predicts impressions.

        Args:
            X: data folder, of which `split` is predicted, or data frame, which needs
                no labels and is predicted row by row.
            split: of a data folder.

        Returns:
            data frame with one row for each impression, in order: `user_key`, `label`
            (0 where `X` has none) and `ctr`, the probability of a click.
        """
        check_is_fitted(self, "model_")
        data_dir = self._to_data_dir(X)
        if not isinstance(X, (str, pathlib.Path)):
            split = "test"
        with DataFolder(data_dir).report_damage():
            # Its processes read the folder that was fitted.
            if self._trainer is None or X != self._data_dir:
                dataset = self._batches(data_dir).dataset(split)
                frame = predict(self.model_, dataset, self.batch_size)
            else:
                frame = self._trainer.predict(split)
        return frame.assign(ctr=self.schema_.unsampled(frame.ctr))

    def evaluate(self, X, split="test"):
        """Metrics of one split, see `hccm_tf.metrics.evaluate_predictions`."""
        if not isinstance(X, (str, pathlib.Path)) and "label" not in X:
            raise InputError("evaluate: the data frame has no column label")
        frame = self.predictions(X, split)
        return evaluate_predictions(frame.label, frame.ctr, frame.user_key)

    def predict_proba(self, X, split="test"):
        """Probabilities of no click and of a click, `[N, 2]`; see `predictions`."""
        clicks = self.predictions(X, split).ctr.to_numpy()
        return np.stack([1 - clicks, clicks], axis=1)

    def predict(self, X, split="test"):
        """Labels: 1 where a click has probability 0.5 or more."""
        return (self.predict_proba(X, split)[:, 1] >= 0.5).astype(int)

    def save(self, run_dir):
        """Writes what another estimator's `warm_start_from` begins with."""
        check_is_fitted(self, "model_")
        save_run(run_dir, self.model_, self.schema_, self.feature_maps_)

    def export(self, export_dir, representation_dtype="float32"):
        """Writes the next version of a SavedModel, see `hccm_tf.serving.export`."""
        check_is_fitted(self, "model_")
        if self.shuffle_images or self.shuffle_categories:
            raise InputError(
                "--export_dir: a control, with images or categories shuffled, has none"
            )
        return export(
            self.model_,
            self.schema_,
            self._data_dir,
            self.feature_maps_,
            export_dir,
            self._options,
            representation_dtype,
        )

    def explain(self, data_dir, path, image_dir, count):
        """Writes a page of some test impressions, see `hccm_tf.explanation`.

        Args:
            data_dir: data folder.
            path: HTML file to write.
            image_dir: folder of the images.
            count: number of impressions, the first of the test split.
        """
        # Here, because it reads pictures with the tools, which import this package.
        from hccm_tf.explanation import write_explanation

        check_is_fitted(self, "model_")
        write_explanation(
            path,
            self.model_,
            self.schema_,
            data_dir,
            self.feature_maps_,
            self._options,
            image_dir,
            count,
        )

    def _batches(self, data_dir):
        """The batches of a data folder, as the model is shown them."""
        return Batches(
            data_dir,
            self.schema_,
            self.batch_size,
            self.feature_maps_,
            sides(self.model_),
            self.group_by_item,
            self._tell_category,
            self.seed,
        )

    def _make_trainer(self, data_dir, options):
        """What trains `model_` or, under a strategy, a model like it."""
        strategy = self.strategy or tf.distribute.get_strategy()
        model = self.model_
        on_servers = has_parameter_servers(strategy)
        with strategy.scope():
            if self.strategy is not None:
                shards = num_tasks("ps") if on_servers else 1
                options = {**options, "embedding_shards": shards}
                model = build_model(self.model, self.schema_, **options)
                _copy_weights(self.model_, model)
            # XLA on CPU is slower for convolutions, and the batches' shapes vary.
            model.compile(
                LazyAdam(self.learning_rate), "binary_crossentropy", jit_compile=False
            )
        make = self._batches(data_dir).dataset
        kind = ParameterServerTrainer if on_servers else SynchronousTrainer
        return kind(model, strategy, make, data_dir, self.batch_size)

    def _pca_options(self, options):
        """The options of `ModelOptions` that projection `pca` takes from the images."""
        width = options.get("image_embedding_dim", ModelOptions.image_embedding_dim)
        mean, components = fit_pca(self.feature_maps_, width)
        return {
            "image_embedding_dim": len(components),
            "pca_mean": mean,
            "pca_components": components,
        }

    def _prepare_cnn(self, data_dir, options):
        """What the CNN starts from; `resume` replaces it by a checkpoint, if any."""
        load_cnn_weights(self.model_, self.cnn_weights, options)
        if self.pretrain_epochs:
            accuracy = pretrain(
                self.model_,
                self.feature_maps_,
                *image_categories(self.schema_, DataFolder(data_dir).catalogue()),
                self.pretrain_epochs,
                self.learning_rate,
                self.seed,
            )
            print(f"the CNN names the category of {accuracy:.1%} of the images")

    def _open_feature_maps(self, data_dir):
        flag = "image_dir" if self.model in PIXEL_MODELS else "feature_maps"
        path = getattr(self, flag)
        if path is None:
            raise InputError(f"--{flag}: model {self.model} needs a folder")
        catalogue = DataFolder(data_dir).catalogue()
        if self.model in PIXEL_MODELS:
            images = catalogue["image"].unique().to_pylist()
            images = [image for image in images if image]
            store = ImageFolder.open(path, images, self.image_size)
        else:
            store = FeatureMapStore.open(path)
        keys = pd.unique(catalogue["image_key"].to_numpy())
        keys = keys[keys != 0]
        found = int((store.find(keys).numpy() > 0).sum())
        if found < MIN_IMAGES_FOUND * len(keys):
            raise InputError(
                f"--{flag}={path} holds {found} of the {len(keys)} images of "
                f"--data_dir={data_dir}: they do not belong together"
            )
        if found < len(keys):
            without = f"{len(keys) - found} of {len(keys)} images"
            if self.model in PIXEL_MODELS:
                example = store.skipped[0]
                print(f"{without} are missing or not decodable, such as {example}")
            else:
                print(f"{without} have no feature map")
        return store.shuffled(self.seed) if self.shuffle_images else store

    def _to_data_dir(self, X, y=None, fitting=False):
        """The data folder `X`, or one made of the data frame `X`."""
        if isinstance(X, (str, pathlib.Path)):
            return X
        if self.strategy is not None:
            raise InputError("strategy: several processes need a data folder")
        if self.items is None:
            raise InputError("items: a data frame of impressions needs the catalogue")
        if not fitting and not hasattr(self, "_log"):
            raise InputError("a data frame can be predicted after fit on a data frame")
        frame = X if y is None else X.assign(label=np.asarray(y))
        data_frames.check_items(self.items, frame)
        folder = tempfile.TemporaryDirectory(prefix="hccm_tf-")
        path = pathlib.Path(folder.name) / "data"
        # The folders live as long as the estimator needs them.
        if fitting:
            self._folder, self._log = folder, frame
            data_frames.build_training(self.items, frame, path)
        else:
            self._scored_folder = folder
            data_frames.build_test(self.items, frame, self._log, self.schema_, path)
        return path


def _copy_weights(source, target):
    """Gives a model the weights of one with the same layers, under any strategy."""
    with tempfile.TemporaryDirectory(prefix="hccm_tf-") as folder:
        path = pathlib.Path(folder) / "model.weights.h5"
        source.save_weights(path)
        target.load_weights(path)


def write_metrics(estimator, test, run_dir):
    """Writes `run_dir/metrics.json` and returns its content.

    Args:
        estimator: a fitted `CTREstimator`.
        test: its `predictions` of the test split.
        run_dir: folder.
    """
    content = {
        "model": estimator.model,
        "seed": estimator.seed,
        "validation": estimator.validation_metrics_,
        "test": evaluate_predictions(test.label, test.ctr, test.user_key),
        "examples_per_second": estimator.examples_per_second_,
        "training": estimator.training_,
    }
    path = pathlib.Path(run_dir) / "metrics.json"
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.rename(path)
    return content
