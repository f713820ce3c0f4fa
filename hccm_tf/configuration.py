"""What a run is told: its model with its options, its settings, its folders."""

import dataclasses
import os

from hccm_tf.errors import InputError
from hccm_tf.files import is_remote
from hccm_tf.images.places import ALLOWED
from hccm_tf.models import Model, Trees, find_model, name_of
from hccm_tf.options import Options, option

DEFAULT_MODEL = "hccm"
# What a run keeps of its folders.
FOLDERS = ("data_dir", "feature_maps", "image_dir")


@dataclasses.dataclass(frozen=True)
class TrainingSettings(Options):
    """Training."""

    epochs: int = option(
        5, "The passes over the training split at most; 0 trains nothing.", lower=0
    )
    patience: int = option(
        1,
        "The epochs without a better validation AUC after which training stops.",
        lower=0,
    )
    batch_size: int = option(
        512, "The impressions in a batch, of each replica or worker.", lower=1
    )
    learning_rate: float = option(1e-3, "The learning rate of LazyAdam.", lower=0)
    seed: int = option(
        0,
        "The seed of everything random; on one machine and one version, the same gives "
        "the same metrics.",
        lower=0,
        upper=2**32 - 1,
    )
    max_history: int | None = option(
        None, "The newest clicks that a history keeps; by default all of DATA.", lower=1
    )
    group_by_item: bool = option(
        False,
        "Whether impressions of an item come in the same training batch, which then "
        "has few images.",
    )
    shuffle_images: bool = option(
        False,
        "Whether to deal the photos out to other items: a control, for what a model "
        "still gains over one without images is then not due to what they show.",
        needs="has_images",
    )
    # For the pages that show photos, too, whatever the model reads.
    allow_links: bool = option(False, ALLOWED["allow_links"])
    allow_private_urls: bool = option(False, ALLOWED["allow_private_urls"])
    shuffle_categories: bool = option(
        False,
        "Whether to tell the image encoder the category of another item, always the "
        "same one: a control; ids and other features stay.",
        needs="tells_category",
    )

    @property
    def is_control(self):
        """Whether the model is not told the truth, and so is not for serving."""
        return self.shuffle_images or self.shuffle_categories

    @property
    def allowed(self):
        """What a catalogue may name, see `hccm_tf.images.read.decode_image`; dict."""
        return {name: getattr(self, name) for name in ALLOWED}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A run before it is trained.

    Args:
        model: subclass of `hccm_tf.models.Model`, or `Trees`.
        options: of `model.Options`.
        settings: `TrainingSettings`.
        data_dir: data folder.
        feature_maps: folder of the feature-map store, for models that take maps.
        image_dir: folder of the images, for models that take pixels.
        run_dir: folder RUN for what the run leaves; `None` leaves nothing.
        resume: whether to go on from the newest checkpoint in `run_dir`.
        warm_start_from: folder of a run whose weights to begin with, or `None`.
        warm_start: which of them, see `hccm_tf.training.warm_start`.
        strategy: name of the strategy of TensorFlow, see
            `hccm_tf.training.strategies`.
    """

    model: type[Model] | type[Trees]
    options: Options
    settings: TrainingSettings
    data_dir: str | None = None
    feature_maps: str | None = None
    image_dir: str | None = None
    run_dir: str | None = None
    resume: bool = False
    warm_start_from: str | None = None
    warm_start: str = "all"
    strategy: str = "one_device"

    @property
    def images_argument(self):
        """Name of the argument that says where the model's images are."""
        return "image_dir" if self.model.takes_pixels else "feature_maps"

    def values(self):
        """All options and settings that the model reads; dict name → value."""
        values = {**vars(self.options), **vars(self.settings)}
        return {name: values[name] for name in readable(self.model)}

    def to_json(self):
        """What of it a run keeps, as JSON holds it; dict."""
        return {
            "model": name_of(self.model),
            "options": dataclasses.asdict(self.options),
            "settings": dataclasses.asdict(self.settings),
            **{name: _absolute(getattr(self, name)) for name in FOLDERS},
        }

    @classmethod
    def from_json(cls, content):
        """The configuration that `to_json` made this of.

        Raises:
            ValueError: if a model, an option or its value is unknown.
            TypeError: likewise.
            KeyError: if something is missing.
        """
        model = find_model(content["model"])
        return cls(
            model,
            model.Options.of(content["options"], f"model {content['model']}"),
            TrainingSettings.of(content["settings"], "training"),
            **{name: content[name] for name in FOLDERS},
        )


def configure(model, given, base=None, **folders):
    """A configuration of options by their names, whosever they are.

    Args:
        model: as of `Configuration`, or what `find_model` takes; `None` for that of
            `base` or, without it, `"hccm"`.
        given: dict name → value, of the model's options and `TrainingSettings`.
        base: `Configuration` of a run to start from: options of the model that are not
            given are its own. Otherwise, as the settings, they have their defaults.
        **folders: the other Args of `Configuration`.

    Raises:
        InputError: if the model is unknown, does not read an option, or an option does
            not have a value; names it.
    """
    try:
        if model is None:
            model = DEFAULT_MODEL if base is None else base.model
        if isinstance(model, str):
            model = find_model(model)
        unread = sorted(set(given) - set(readable(model)))
        if unread:
            raise ValueError(
                f"model {model.name} does not read {', '.join(unread)}. It reads: "
                f"{', '.join(readable(model))}"
            )
        settings = {k: v for k, v in given.items() if k in TrainingSettings.names()}
        options = {k: v for k, v in given.items() if k not in settings}
        if base is not None and base.model is model:
            options = {**dataclasses.asdict(base.options), **options}
        options, settings = model.Options(**options), TrainingSettings(**settings)
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from error
    return Configuration(model, options, settings, **folders)


def readable(model):
    """Names of the options and settings that a model reads, tuple of str.

    Args:
        model: as of `Configuration`.
    """

    def reads(field):
        needs = field.metadata["needs"]
        return needs is None or getattr(model, needs)

    settings = [
        field
        for field in dataclasses.fields(TrainingSettings)
        if model.settings is None or field.name in model.settings
    ]
    fields = (*dataclasses.fields(model.Options), *settings)
    return tuple(field.name for field in fields if reads(field))


def to_flags(configuration):
    """The flags of `train_main.py` for the same run; dict name → `--name=value`.

    All options are there, so that the run stays the same when a default changes; not
    there are `run_dir` and `resume`.
    """
    names = ["data_dir", "strategy"]
    if configuration.model.has_images:
        names.append(configuration.images_argument)
    if configuration.warm_start_from is not None:
        names += ["warm_start_from", "warm_start"]
    values = {"model": name_of(configuration.model)}
    values.update({name: getattr(configuration, name) for name in names})
    values.update(configuration.values())
    return {n: to_flag(n, value) for n, value in values.items() if value is not None}


def to_flagfile(configuration):
    """`to_flags` as the text of a flagfile, for any working directory."""
    names = (*FOLDERS, "warm_start_from")
    folders = {name: _absolute(getattr(configuration, name)) for name in names}
    flags = to_flags(dataclasses.replace(configuration, **folders))
    return "\n".join(flags.values()) + "\n"


def _absolute(path):
    return path if path is None or is_remote(path) else os.path.abspath(path)


def to_flag(name, value):
    """An option as it is written on the command line."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    return f"--{name}={value}"
