"""The classes of options behind the flags, in the order in which a user meets them."""

import dataclasses

from hccm_tf.configuration import TrainingSettings
from hccm_tf.models import CHOICES
from hccm_tf.options import Options, option
from hccm_tf.serving.representations import REPRESENTATION_DTYPES
from hccm_tf.training.strategies import STRATEGIES
from hccm_tf.training.warm_start import WARM_STARTS


@dataclasses.dataclass(frozen=True)
class RunOptions(Options):
    """The run: its model, its data, its folder, where it begins."""

    model: str | None = option(
        None,
        f"The model: {', '.join(CHOICES)}, or my_package.my_module:MyModel for one of "
        "your own; by default hccm, or that of the run that it begins with.",
    )
    data_dir: str | None = option(None, "The folder DATA of build_examples.")
    feature_maps: str | None = option(
        None, "The folder MAPS of extract_feature_maps, for models that take maps."
    )
    image_dir: str | None = option(
        None,
        "The folder of the images, for models that take pixels, for --explain and "
        "--projector.",
    )
    cache_dir: str | None = option(
        None,
        "The folder for copies of DATA and MAPS that are in an object store, s3:// "
        "say, from which they are read.",
    )
    run_dir: str | None = option(
        None,
        "The folder RUN for what the run leaves; one that holds a run already is "
        "refused without --resume.",
    )
    resume: bool = option(
        False, "Whether to go on from the last checkpoint in RUN, if there is one."
    )
    warm_start_from: str | None = option(
        None,
        "The folder of a run whose weights to begin with; its model's options are "
        "taken over unless others are given.",
    )
    warm_start: str = option(
        "all",
        "What of its weights: {choices}; shrink is for DATA of all days so far.",
        tuple(WARM_STARTS),
    )
    from_run: str | None = option(
        None,
        "The folder of a run to take as it is, without training: for --export_dir or "
        "--explain or, with --data_dir and --run_dir, for its metrics on other data.",
    )
    strategy: str = option(
        "one_device",
        "The strategy of TensorFlow: {choices}; the cluster comes from TF_CONFIG.",
        tuple(STRATEGIES),
    )


@dataclasses.dataclass(frozen=True)
class ResultOptions(Options):
    """What is made of the trained model."""

    export_dir: str | None = option(
        None, "The folder of SavedModel versions to which the next one is added."
    )
    representation_dtype: str = option(
        "float32",
        "The type of the export's table of images: {choices}.",
        tuple(REPRESENTATION_DTYPES),
    )
    explain: int = option(
        0, "The number of test impressions to show in RUN/explanation.html.", lower=0
    )
    projector: int = option(
        0,
        "The number of items, those most shown, to lay out in TensorBoard's projector, "
        "with their photos if there is --image_dir: tensorboard --logdir=RUN/logs.",
        lower=0,
        # In photos of 64 pixels, the largest picture that all browsers take.
        upper=128**2,
    )
    verdict: bool = option(
        True,
        "Whether to say after training what it is worth: against a constant, "
        "popularity and boosted trees, on validation and on what it was trained on; "
        "not in a cluster.",
    )
    check_photos: bool = option(
        False,
        "Whether to say also if the photos seem to pay, by a second training with the "
        "photos dealt out to other items.",
    )


@dataclasses.dataclass(frozen=True)
class ComparisonOptions(Options):
    """A comparison of several models, whose runs it trains."""

    compare: list | None = option(
        None,
        "The arms, separated by commas: each is a model, or a model with further "
        "flags; their order is the claim.",
    )
    seeds: int = option(5, "The runs of each arm, with seeds from --seed on.", lower=1)
    search_trials: int = option(
        4,
        "The settings of learning rate, dropout, id dropout and match shares that each "
        "arm tries beside its own: on a third of the users, the best third of them on "
        "all.",
        lower=0,
    )
    oracle: str | None = option(
        None, "The oracle.json of make_demo, whose metrics stand beside the arms'."
    )


def model_groups(models):
    """The classes in which models' options stand, those of most models first.

    Args:
        models: subclasses of `hccm_tf.models.Model`.

    Returns:
        dict class of options → list of the models that have it.
    """
    found = {}
    for model in models:
        for options in reversed(model.Options.__mro__):
            if issubclass(options, Options) and own_fields(options):
                found.setdefault(options, []).append(model)
    return found


def own_fields(options):
    """The fields that a class of options has itself, and does not inherit."""
    names = vars(options).get("__annotations__", {})
    return [field for field in dataclasses.fields(options) if field.name in names]


def all_groups(models):
    """All classes of options, with the models that read them; dict, `None` for all."""
    return {
        RunOptions: None,
        ResultOptions: None,
        TrainingSettings: None,
        **model_groups(models),
        ComparisonOptions: None,
    }
