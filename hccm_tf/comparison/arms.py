"""The arms of a comparison, what each is compared with, and the flags of their runs."""

import copy
import dataclasses
import re
import shlex

from absl import flags

from hccm_tf.configuration import Configuration, readable, to_flags
from hccm_tf.errors import InputError, with_flag
from hccm_tf.flags.groups import ComparisonOptions, ResultOptions
from hccm_tf.flags.read import (
    given_options,
    leave_out,
    model_of,
    options_of,
    read_configuration_flags,
    typed,
)
from hccm_tf.models import Trees

# An arm may not change them: the comparison sets them, or rests on their being equal.
COMMON_FLAGS = (
    *ComparisonOptions.names(),
    *ResultOptions.names(),
    "cache_dir",
    "data_dir",
    "flagfile",
    "from_run",
    "model",
    "resume",
    "run_dir",
    "seed",
)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One arm.

    Args:
        label: what stands in --compare.
        configuration: `Configuration` of its runs.
        flags: flag of `train_main.py` → how it is written, `--name=value`; those of its
            runs.
        is_control: whether the photos are shuffled.
    """

    label: str
    configuration: Configuration = dataclasses.field(repr=False)
    flags: dict = dataclasses.field(repr=False)
    is_control: bool = False

    @property
    def folder(self):
        """Name of the folder of its runs."""
        return re.sub(r"[^\w.=]+", "-", self.label).strip("-")

    @property
    def is_trees(self):
        """Whether it is no network."""
        return self.configuration.model is Trees

    @property
    def sees_photos(self):
        """Whether what it predicts depends on photos."""
        if self.is_trees:
            return self.configuration.options.similarity != "none"
        return self.configuration.model.has_images


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two arms that are compared.

    Args:
        arm: place of the arm in the list.
        base: place of what it is compared with.
        kind: `"step"` of the order, `"variant"`, `"control"`, `"photos"` or `"trees"`.
    """

    arm: int
    base: int
    kind: str


def read_arms(flag_values, typed_names):
    """The arms of --compare, with the flags that their runs get.

    Args:
        flag_values: `absl.flags.FlagValues` of `train_main.py`, parsed.
        typed_names: names of the flags on the command line; one of them that no arm
            reads is an error, one of a flagfile is named and left out.

    Returns:
        list of `Arm`.

    Raises:
        InputError: names the arm and the flag.
    """
    for name in ("export_dir", "explain", "projector", "from_run", "check_photos"):
        if flag_values[name].value:
            raise InputError(f"--{name} is of one model, and --compare trains many")
    labels = options_of(ComparisonOptions, flag_values).compare
    arms = [_read_arm(flag_values, label) for label in labels]
    arms[0] = dataclasses.replace(arms[0], is_control=False)
    read = {name for arm in arms for name in _shared(arm.configuration.model)}
    given = given_options(flag_values, arms[0].configuration.model)
    unread = [name for name in given if name not in read]
    leave_out(unread, typed_names, "no arm of --compare reads it")
    folders = [arm.folder for arm in arms]
    if len(arms) < 2 or len(set(folders)) < len(folders):
        raise InputError(
            f"--compare: two or more different arms. Received: {', '.join(labels)}"
        )
    for place, arm in enumerate(arms):
        for other in arms[:place]:
            if arm.flags == other.flags:
                raise InputError(
                    f"--compare: arms {other.label!r} and {arm.label!r} are the same "
                    "model with the same settings"
                )
    return arms


def _shared(model):
    """Names that a model reads of what is given for all arms.

    What is of networks is not of trees, even by the same name.
    """
    return readable(model) if model is not Trees else Trees.settings


def _read_arm(flag_values, label):
    try:
        model, *words = shlex.split(label) or [""]
        values = copy.deepcopy(flag_values)
        left = values(["train_main.py", f"--model={model}", *words])[1:]
    except (ValueError, flags.Error) as error:
        raise InputError(f"--compare: arm {label!r}: {error}") from error
    if left:
        raise InputError(
            f"--compare: arm {label!r} is a model and flags. Received: {left[0]}"
        )
    own = typed(values, words)
    for name in (n for n in COMMON_FLAGS if n in own):
        raise InputError(
            f"--compare: arm {label!r} sets --{name}, which all arms share"
        )
    try:
        model = model_of(model, None)
        # What is given for all arms may be read by some.
        for name in given_options(values, model):
            if name not in _shared(model) and name not in own:
                values[name].value = None
        configuration = read_configuration_flags(values, own)
    except InputError as error:
        message = with_flag(str(error), flag_values)
        raise InputError(f"--compare: arm {label!r}: {message}") from error
    is_control = configuration.settings.shuffle_images
    return Arm(label, configuration, to_flags(configuration), is_control)


def pairs(arms):
    """What is compared with what.

    The first arm and those that are a model's name alone are the order that is claimed,
    each a step from the one before. An arm with flags is a variant: of the same model
    without flags if that is in the list, else of the first arm. An arm with its photos
    shuffled is a control: it must not be shown to gain over the first arm, and the same
    arm with its own photos must gain over it. Trees are no step, and have a first arm
    of their own: of the order, the last arm must gain over them that sees photos if
    they do, and none if not; where there is no such arm, the last.

    Args:
        arms: list of `Arm`.

    Returns:
        list of `Pair`, in the order of the arms, those with trees last.
    """
    labels = [arm.label for arm in arms]
    result, order = [], []
    for place, arm in enumerate(arms):
        model = shlex.split(arm.label)[0]
        first = [other.is_trees for other in arms].index(arm.is_trees)
        base = labels.index(model) if model in labels else first
        if place == first and not arm.is_trees:
            order.append(place)
        elif arm.is_control:
            result.append(Pair(place, first, "control"))
            own = {**arm.flags, "shuffle_images": "--noshuffle_images"}
            result += [
                Pair(real, place, "photos")
                for real, other in enumerate(arms)
                if other.flags == own
            ]
        elif place != base:
            result.append(Pair(place, base, "variant"))
        elif not arm.is_trees:
            result.append(Pair(place, order[-1], "step"))
            order.append(place)
    return result + _over_trees(arms, order)


def _over_trees(arms, order):
    """What must gain over the trees, list of `Pair`; `order` has places of arms."""
    result = []
    for place, arm in enumerate(arms):
        if arm.is_trees and not arm.is_control and order:
            like = [p for p in order if arms[p].sees_photos == arm.sees_photos]
            result.append(Pair((like or order)[-1], place, "trees"))
    return result
