"""A run on disk, and the trained model that knows how it was built.

Nothing else knows the files of a run.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf
from packaging.version import Version

from hccm_tf import finite_json, formats
from hccm_tf.atomic import (
    check_can_make,
    locked,
    new_file,
    remove_unfinished,
    write_text,
)
from hccm_tf.configuration import Configuration, to_flagfile
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.files import read_json
from hccm_tf.keras_file import load_keras_model
from hccm_tf.models import ImageInput, Model
from hccm_tf.version import __version__

TRAIN = "python train_main.py --run_dir=RUN"


class RunFolder:
    """The folder RUN of a training run.

    Args:
        path: str or `pathlib.Path`.

    Attributes:
        path: the folder, `pathlib.Path`.
        model: the trained Keras model.
        schema: folder of the `Schema` that it was trained with.
        description: JSON with the format's version, the configuration, what the
            feature maps depend on, and the versions of the packages.
        beginning: JSON with what each of its steps depends on, for a resume.
        flags: a flagfile for `train_main.py` that makes the same run.
        metrics: JSON with the metrics of the best epoch; written last.
        predictions: Parquet with the predictions of the test split.
        history: CSV with a row for each epoch.
        logs: folder of TensorBoard logs, by epoch.
        step_logs: the folder among them of logs by step.
        projector: likewise, of the items of --projector.
        checkpoints: folder of the checkpoints.
        request: JSON, a first request for the run's export.
        explanation: the page of --explain.
        pixels: the images of the catalogue while parameter servers' workers read them.
        frames: folder of the data frames that an estimator was fitted on.
        log: what the run printed, where a comparison started it.
        arm: JSON with the flags and the data of such a run.
        lock: held by the process that trains the run.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.model = self.path / "model.keras"
        self.schema = self.path / "schema"
        self.description = self.path / "run.json"
        self.beginning = self.path / "beginning.json"
        self.flags = self.path / "run.flags"
        self.metrics = self.path / "metrics.json"
        self.predictions = self.path / "test_predictions.parquet"
        self.history = self.path / "history.csv"
        self.logs = self.path / "logs"
        self.step_logs = self.logs / "steps"
        self.projector = self.logs / "items"
        self.checkpoints = self.path / "checkpoints"
        self.request = self.path / "request.json"
        self.explanation = self.path / "explanation.html"
        self.pixels = self.path / "pixels.u8"
        self.frames = self.path / "frames"
        self.log = self.path / "log.txt"
        self.arm = self.path / "flags.json"
        self.lock = self.path / "lock"

    def exists(self):
        """Whether a run has left something that another would overwrite."""
        kept = self.model, self.checkpoints, self.history, self.metrics
        return any(path.exists() for path in kept)

    @contextlib.contextmanager
    def training(self, resume):
        """Keeps other processes from training this run, and an older run as it is.

        Args:
            resume: whether to go on with the run that is there.

        Raises:
            InputError: if there is a run and `resume` is false, or another process
                trains it.
        """
        with errors_begin_with("run_dir="):
            check_can_make(self.path / self.lock.name)
        is_new = not self.path.exists()
        with contextlib.ExitStack() as stack:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(self.lock))
            except BlockingIOError as error:
                raise InputError(
                    f"run_dir={self.path}: another process trains this run; wait "
                    "for it or end it, or name another folder"
                ) from error
            # Now that no other process can be about to leave one.
            if self.exists() and not resume:
                raise InputError(
                    f"run_dir={self.path}: it holds a run already; go on with resume, "
                    "name another folder, or remove it"
                )
            for path in (self.model, self.predictions, self.history, self.metrics):
                remove_unfinished(path)
            try:
                yield
            except InputError:
                if is_new and list(self.path.iterdir()) == [self.lock]:
                    shutil.rmtree(self.path)
                raise
            finally:
                self.pixels.unlink(missing_ok=True)

    def write_metrics(self, content):
        """Writes `metrics`, whole or not at all."""
        write_text(self.metrics, finite_json.to_text(content, indent=2) + "\n")

    def read_metrics(self):
        """Content of `metrics`, with NaN for what could not be computed.

        Raises:
            InputError: if the run has none.
        """
        try:
            return finite_json.with_nan(read_json(self.metrics))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.metrics}: no metrics of a run ({error}); name the folder of a "
                "run that has ended"
            ) from error


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A trained model that knows how it was built.

    Args:
        keras_model: `keras.Model` of `definition.build`, trained.
        definition: `hccm_tf.models.Model`, with the schema, the model's options and how
            its feature maps are standardised.
        configuration: `Configuration` that it was trained with.
        cnn: what its feature maps depend on, see `ImageStore.cnn`; `None` without.
    """

    keras_model: keras.Model
    definition: Model
    configuration: Configuration
    cnn: dict | None = None

    @property
    def name(self):
        """How users call the model."""
        return self.definition.name

    @property
    def schema(self):
        """`Schema` of the features that it takes."""
        return self.definition.schema

    @property
    def num_parameters(self):
        """How many numbers its layers have."""
        return self.keras_model.count_params()

    def save(self, run_dir):
        """Writes what `load` reads, whole or not at all.

        Args:
            run_dir: folder RUN; a trained model that is there is replaced.
        """
        folder = RunFolder(run_dir)
        folder.path.mkdir(parents=True, exist_ok=True)
        with new_file(folder.model) as temporary:
            # Keras looks at how the name ends.
            whole = temporary.with_suffix(".keras")
            try:
                self.keras_model.save(whole)
                # Where the model is, there is what belongs to it.
                folder.model.unlink(missing_ok=True)
                folder.schema.mkdir(exist_ok=True)
                self.schema.save(folder.schema)
                write_text(folder.flags, to_flagfile(self.configuration))
                text = json.dumps(self._description(), indent=2)
                write_text(folder.description, text + "\n")
                whole.rename(temporary)
            finally:
                whole.unlink(missing_ok=True)

    def _description(self):
        images = self.definition.images
        if images is not None:
            images = {
                "cnn": self.cnn,
                "shape": list(images.shape),
                "channel_mean": _to_list(images.channel_mean),
                "channel_std": _to_list(images.channel_std),
            }
        return {
            "format": formats.RUN,
            "versions": {
                "hccm_tf": __version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
            **self.configuration.to_json(),
            "images": images,
        }

    @classmethod
    def load(cls, run_dir):
        """The model that a run has trained.

        Code in the folder does not run; a class of one's own, which the run names, is
        imported from where Python finds it.

        Args:
            run_dir: folder RUN.

        Raises:
            InputError: if there is none, a file of it is damaged, or a newer Keras has
                saved it; names it.
        """
        folder = RunFolder(run_dir)
        with _description(folder) as content:
            configuration = Configuration.from_json(content)
            saved_by = Version(content["versions"]["keras"])
            images, cnn = content["images"], None
            if images is not None:
                cnn = images["cnn"]
                images = ImageInput(
                    tuple(images["shape"]),
                    _to_array(images["channel_mean"]),
                    _to_array(images["channel_std"]),
                )
        schema = Schema.load(folder.schema)
        definition = configuration.model(schema, configuration.options, images)
        keras_model = load_keras_model(folder.model, saved_by)
        return cls(keras_model, definition, configuration, cnn)


def read_configuration(run_dir):
    """The `Configuration` that a run was trained with.

    Args:
        run_dir: folder RUN.

    Raises:
        InputError: as `TrainedModel.load`.
    """
    with _description(RunFolder(run_dir)) as content:
        return Configuration.from_json(content)


@contextlib.contextmanager
def _description(folder):
    """Yields what describes the model of a run; what is wrong with it is one line."""
    path = folder.description
    try:
        content = read_json(path)
        formats.check_format(path, content.get("format"), formats.RUN, TRAIN)
        yield content
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} does not describe a trained model ({error}); name the folder of a "
            f"run, or train again with {TRAIN}"
        ) from error


def _to_list(values):
    return None if values is None else np.asarray(values).tolist()


def _to_array(values):
    return None if values is None else np.float32(values)
