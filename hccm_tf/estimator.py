"""scikit-learn's interface to the whole path: data folder or data frame → model."""

import contextlib
import pathlib
import shutil

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from hccm_tf.configuration import configure
from hccm_tf.errors import InputError
from hccm_tf.explanation import write_explanation
from hccm_tf.metrics import evaluate_frame
from hccm_tf.models import Trees, name_of
from hccm_tf.preparation.examples.data_frames import FrameFolders, check_frame
from hccm_tf.progress import silent
from hccm_tf.run_folder import RunFolder
from hccm_tf.runs import TrainedModel, read_configuration
from hccm_tf.serving.export import export
from hccm_tf.training.fit import FittedModel, fit, run_in_training
from hccm_tf.training.images import images_path

# Its own; the others are options of the model and `TrainingSettings`.
PARAMETERS = {
    "model": None,
    "feature_maps": None,
    "items": None,
    "image_dir": None,
    "run_dir": None,
    "resume": False,
    "warm_start_from": None,
    "warm_start": "all",
    "strategy": None,
    "verbose": True,
}


class CTREstimator(ClassifierMixin, BaseEstimator):
    """Click-through-rate classifier over image behaviours.

    `X` is a data folder of `tfrecords_tools.build_examples`, or a data frame of
    impressions (`user_id, item_id, timestamp`, `label` unless given as `y`, optionally
    `split`, and context columns), for which `items` gives the catalogue. Histories of
    a data frame are joined point in time; those of later frames also see the clicks
    of the frame that was fitted.

    Args:
        model: one of `hccm_tf.models.MODELS`, or `"my_package.my_module:MyModel"`;
            `None` for that of `warm_start_from` or, without it, `"hccm"`.
        feature_maps: folder of the feature-map store, for models that take maps.
        items: data frame `item_id, image, category` and attributes; for data frames.
        image_dir: folder of the images, for models that take pixels.
        run_dir: folder for logs and checkpoints; `None` writes none.
        resume: whether `fit` goes on from the newest checkpoint in `run_dir`.
        warm_start_from: folder of a run, or of `save`, whose weights `fit` begins with;
            options of the model that are not given are that run's.
        warm_start: `"all"` of them, `"all_but_ids"` or `"shrink"`, see
            `hccm_tf.training.warm_start`.
        strategy: `tf.distribute.Strategy` of
            `hccm_tf.training.strategies.make_strategy`, made before TensorFlow does
            anything else; `None` for one device. It takes a data folder that all
            processes see, as they see `run_dir`.
        verbose: whether it says what it does and how far it is; warnings are said
            anyway.
        **options: options of the model and of `hccm_tf.configuration.TrainingSettings`,
            by their names: `epochs=3, dropout=0.2`.

    Attributes:
        classes_: `[0, 1]`.
        fitted_: `hccm_tf.training.fit.FittedModel`.
        model_: the trained `keras.Model`.
        schema_: its `Schema`.
        validation_metrics_: of the best epoch, which is the one kept.

    Example:
    ```python
    estimator = CTREstimator("hccm", feature_maps="MAPS", epochs=2)
    estimator.fit("DATA").evaluate("DATA")["auc"]
    estimator.export("saved_models/hccm")
    ```
    """

    classes_ = np.array([0, 1])

    def __init__(self, model=None, feature_maps=None, **options):
        given = {"model": model, "feature_maps": feature_maps, **options}
        for name, default in PARAMETERS.items():
            setattr(self, name, given.pop(name, default))
        self.options = given

    def __repr__(self):
        given = {name: getattr(self, name) for name in PARAMETERS} | self.options
        texts = []
        for name, value in given.items():
            # A data frame would fill the screen.
            rows = f"<{len(value)} rows>" if hasattr(value, "shape") else None
            if rows or name in self.options or value != PARAMETERS[name]:
                texts.append(f"{name}={rows or repr(value)}")
        return f"{type(self).__name__}({', '.join(texts)})"

    def get_params(self, deep=True):
        """Its parameters, by name.

        Args:
            deep: whether those that were not given are there, at their defaults;
                scikit-learn clones without them.
        """
        own = {name: getattr(self, name) for name in PARAMETERS}
        defaults = self._configure().values() if deep else {}
        return {**defaults, **self.options, **own}

    def set_params(self, **parameters):
        """Sets parameters by name, all or, after an error, none; returns itself."""
        changed = type(self)(**{**self.get_params(deep=False), **parameters})
        changed._configure()
        vars(self).update(vars(changed))
        return self

    def fit(self, X, y=None):
        """Trains on split `train`, keeps the epoch that is best on `validation`.

        Args:
            X: data folder or data frame, see the class; of a data frame without
                `split`, the newest tenth is the validation split.
            y: labels of a data frame without the column `label`.

        Returns:
            The estimator.

        Raises:
            InputError: names the file, column, row or argument to mend.
            FloatingPointError: if the loss is not finite; names the step.
        """
        # A misspelt option, and maps that lack, are said before anything is built.
        configuration = self._configure()
        if configuration.model is Trees:
            raise InputError("model trees: train_main.py trains it, for a comparison")
        images_path(configuration)
        with self._says():
            self._fit(X, y)
        return self

    def _says(self):
        return contextlib.nullcontext() if self.verbose else silent()

    def _fit(self, X, y):
        frames = None
        if not _is_folder(X):
            if self.strategy is not None:
                raise InputError("strategy: several processes need a data folder")
            frames = FrameFolders(self.items, X, y)
            X = frames.training
        configuration = self._configure(X)
        with run_in_training(configuration, self.strategy):
            fitted = fit(configuration, self.strategy)
        # A `fit` that fails leaves what the one before it made.
        self.validation_metrics_ = fitted.evaluate("validation")
        self.frames_, self.fitted_ = frames, fitted

    @property
    def model_(self):
        """The trained `keras.Model`."""
        return self.fitted_.trained.keras_model

    @property
    def schema_(self):
        """The `Schema` of the trained model."""
        return self.fitted_.trained.schema

    def predictions(self, X, split="test"):
        """Predicts impressions.

        Args:
            X: data folder, of which `split` is predicted, or data frame, which needs
                no labels and is predicted row by row.
            split: of a data folder.

        Returns:
            data frame with one row for each impression: `row`, its number in the log or
            in `X`, `user_key`, `label` (0 where `X` has none), `weight` and `ctr`, the
            probability of a click. Those of a data frame come in its order.
        """
        check_is_fitted(self, "fitted_")
        with self._says():
            if _is_folder(X):
                size = self.options.get("batch_size")
                return self.fitted_.predictions(split, X, size)
            if self.frames_ is None:
                raise InputError(
                    "X: a data frame can be predicted after fit on a data frame; "
                    "python -m hccm_tf.predict scores a table with a run"
                )
            return self._predict_frame(X)

    def _predict_frame(self, X):
        folder = self.frames_.scoring(X, self.schema_)
        size = self.options.get("batch_size")
        frame = self.fitted_.predictions("test", folder, size)
        # Its requests were put together.
        frame = frame.sort_values("row", ignore_index=True)
        return frame.assign(row=frame.index)

    def evaluate(self, X, split="test"):
        """Metrics of one split, see `hccm_tf.metrics.evaluate_frame`."""
        if not _is_folder(X):
            check_frame("X", X, ["label"])
        return evaluate_frame(self.predictions(X, split))

    def predict_proba(self, X, split="test"):
        """Probabilities of no click and of a click, `[N, 2]`; see `predictions`."""
        clicks = self.predictions(X, split).ctr.to_numpy()
        return np.stack([1 - clicks, clicks], axis=1)

    def predict(self, X, split="test"):
        """Labels: 1 where a click has probability 0.5 or more."""
        return (self.predict_proba(X, split)[:, 1] >= 0.5).astype(int)

    def save(self, path):
        """Writes what `load` reads, and what `warm_start_from` begins with.

        Args:
            path: folder; what was saved there before is replaced.
        """
        check_is_fitted(self, "fitted_")
        self.fitted_.trained.save(path)
        frames = RunFolder(path).frames
        shutil.rmtree(frames, ignore_errors=True)
        if self.frames_ is not None:
            self.frames_.save(frames)

    @classmethod
    def load(cls, path):
        """The estimator that `save`, or a run of `train_main.py`, has left in a folder.

        Its predictions are the same to the last bit, in a process with the same
        `TF_ENABLE_ONEDNN_OPTS`, which commands set to 1.
        """
        trained, frames = TrainedModel.load(path), RunFolder(path).frames
        told = trained.configuration
        folders = {name: getattr(told, name) for name in ("feature_maps", "image_dir")}
        estimator = cls(name_of(told.model), **folders, **told.values())
        estimator.frames_, estimator.fitted_ = None, FittedModel(trained)
        if frames.exists():
            estimator.frames_ = FrameFolders.load(frames)
            estimator.fitted_ = estimator.fitted_.moved(estimator.frames_.training)
        return estimator

    def __setstate__(self, state):
        super().__setstate__(state)
        if state.get("frames_") is not None:
            # Its folders are other ones in another process.
            self.fitted_ = self.fitted_.moved(self.frames_.training)

    def export(self, export_dir, representation_dtype="float32"):
        """Writes the next version of a SavedModel, see `hccm_tf.serving.export`."""
        check_is_fitted(self, "fitted_")
        with self._says():
            trained, batches = self.fitted_.trained, self.fitted_.batches_of()
            data = batches.data_dir, batches.images
            return export(trained, *data, export_dir, representation_dtype)

    def explain(self, data_dir, path, image_dir, count):
        """Writes a page of some test impressions, see `hccm_tf.explanation`.

        Args:
            data_dir: data folder.
            path: HTML file to write.
            image_dir: folder of the images that are no URLs.
            count: number of impressions, the first of the test split.
        """
        check_is_fitted(self, "fitted_")
        batches = self.fitted_.batches_of(data_dir)
        write_explanation(path, self.fitted_.trained, batches, image_dir, count)

    def _configure(self, data_dir=None):
        """The `Configuration` of its parameters."""
        start = self.warm_start_from
        base = None if start is None else read_configuration(start)
        names = ("feature_maps", "image_dir", "run_dir", "resume")
        folders = {name: getattr(self, name) for name in names}
        return configure(
            self.model,
            self.options,
            base,
            data_dir=data_dir,
            warm_start_from=start,
            warm_start=self.warm_start,
            **folders,
        )


def load_run(run_dir):
    """The estimator of a run; `CTREstimator.load`."""
    return CTREstimator.load(run_dir)


def _is_folder(X):
    return isinstance(X, (str, pathlib.Path))
