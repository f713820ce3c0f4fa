"""The arms of a comparison, what each is compared with, and the flags of their runs."""

import copy
import dataclasses
import re
import shlex

from absl import flags

from hccm_tf.errors import InputError
from hccm_tf.models import IMAGE_MODELS, PIXEL_MODELS

# Of --compare only; a run does not get them. An interrupted run goes on by itself.
COMPARISON_FLAGS = ("compare", "seeds", "search_trials", "oracle", "resume")
MAP_MODELS = tuple(name for name in IMAGE_MODELS if name not in PIXEL_MODELS)
# Flag that makes an arm -> the models that it changes.
READ_BY = {
    "channel_attention": ("hcm", "hccm"),
    "prior_channel": ("hccm",),
    "projection": ("din_fixed_cnn",),
    "cnn_attention": PIXEL_MODELS,
    "shuffle_categories": ("late_fusion", "hccm", "cscnn"),
    "shuffle_images": IMAGE_MODELS,
    "image_sides": MAP_MODELS,
    "image_attention": MAP_MODELS,
    "similarity": MAP_MODELS,
}
# Of one run, whose model is looked at or served.
RUN_FLAGS = ("export_dir", "explain")
# An arm may not change them: the comparison sets them, or rests on their being equal.
COMMON_FLAGS = (
    *COMPARISON_FLAGS,
    *RUN_FLAGS,
    "data_dir",
    "model",
    "run_dir",
    "seed",
)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One arm.

    Args:
        label: what stands in --compare.
        flags: flag of `train_main.py` → how it is written, `--name=value`; all that
            have a value.
        is_control: whether the photos are shuffled.
    """

    label: str
    flags: dict = dataclasses.field(repr=False)
    is_control: bool = False

    @property
    def folder(self):
        """Name of the folder of its runs."""
        return re.sub(r"[^\w.=]+", "-", self.label).strip("-")


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two arms that are compared.

    Args:
        arm: place of the arm in the list.
        base: place of what it is compared with.
        kind: `"step"` of the order, `"variant"`, `"control"` or `"photos"`.
    """

    arm: int
    base: int
    kind: str


def read_arms(flag_values):
    """The arms of --compare, with the flags that their runs get.

    Args:
        flag_values: `absl.flags.FlagValues` of `train_main.py`, parsed.

    Returns:
        list of `Arm`.

    Raises:
        InputError: names the arm and the flag.
    """
    for name in RUN_FLAGS:
        if flag_values[name].value:
            raise InputError(f"--{name} is of one model, and --compare trains many")
    arms = []
    for label in flag_values.compare:
        try:
            model, *words = shlex.split(label) or [""]
        except ValueError as error:
            raise InputError(f"--compare: arm {label!r}: {error}") from error
        values = _parsed(flag_values, label, [f"--model={model}", *words])
        changed = [
            name
            for name in COMMON_FLAGS
            if values[name].value
            != (model if name == "model" else flag_values[name].value)
        ]
        if changed:
            raise InputError(
                f"--compare: arm {label!r} sets --{changed[0]}, which all arms share"
            )
        for name, models in READ_BY.items():
            if values[name].value != flag_values[name].value and model not in models:
                raise InputError(
                    f"--compare: arm {label!r} sets --{name}, which changes nothing "
                    f"in it but in {', '.join(models)}"
                )
        is_control = bool(arms) and values.shuffle_images
        arms.append(Arm(label, _written(values), is_control))
    folders = [arm.folder for arm in arms]
    if len(arms) < 2 or len(set(folders)) < len(folders):
        raise InputError(
            f"--compare: two or more different arms. Received: {flag_values.compare}"
        )
    return arms


def _parsed(flag_values, label, words):
    values = copy.deepcopy(flag_values)
    try:
        left = values(["train_main.py", *words])[1:]
    except flags.Error as error:
        raise InputError(f"--compare: arm {label!r}: {error}") from error
    if left:
        raise InputError(
            f"--compare: arm {label!r} is a model and flags. Received: {left[0]}"
        )
    return values


def _written(values):
    module = values.find_module_defining_flag("model")
    return {
        flag.name: flag.serialize()
        for flag in values.get_key_flags_for_module(module)
        if flag.value is not None and flag.name not in COMPARISON_FLAGS
    }


def pairs(arms):
    """What is compared with what.

    The first arm and those that are a model's name alone are the order that is claimed,
    each a step from the one before. An arm with flags is a variant: of the same model
    without flags if that is in the list, else of the first arm. An arm with its photos
    shuffled is a control: it must fall back to the first arm, and the same arm with its
    own photos must gain over it.

    Args:
        arms: list of `Arm`.

    Returns:
        list of `Pair`, in the order of the arms.
    """
    labels = [arm.label for arm in arms]
    result, last = [], 0
    for place, arm in enumerate(arms[1:], 1):
        model, *words = shlex.split(arm.label)
        if arm.is_control:
            result.append(Pair(place, 0, "control"))
            own = {**arm.flags, "shuffle_images": "--noshuffle_images"}
            result += [
                Pair(real, place, "photos")
                for real, other in enumerate(arms)
                if other.flags == own
            ]
        elif words:
            base = labels.index(model) if model in labels else 0
            result.append(Pair(place, base, "variant"))
        else:
            result.append(Pair(place, last, "step"))
            last = place
    return result
