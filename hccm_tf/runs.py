"""A trained model that knows how it was built, as a run keeps it on disk."""

import contextlib
import dataclasses
import json

import keras
import numpy as np
import tensorflow as tf
from packaging.version import Version

from hccm_tf import formats
from hccm_tf.atomic import new_file, write_text
from hccm_tf.configuration import Configuration, to_flagfile
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.files import read_json
from hccm_tf.keras_file import load_keras_model
from hccm_tf.models import ImageInput, Model
from hccm_tf.run_folder import RunFolder
from hccm_tf.version import __version__

TRAIN = "python train_main.py --run_dir=RUN"


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
