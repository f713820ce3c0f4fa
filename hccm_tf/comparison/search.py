"""The search on validation: one list of settings for every arm.

All are tried on a third of the users; the command's own, and the best third of the
others there, on all of them. A round of successive halving (K. Jamieson, A. Talwalkar,
AISTATS 2016, https://arxiv.org/abs/1502.07943), but for a third.
"""

import numpy as np

from hccm_tf.data.folder import DataFolder
from hccm_tf.data.labels import missing_label
from hccm_tf.errors import InputError

# Name → lowest, highest, scale.
SPACE = {
    "learning_rate": (5e-4, 5e-3, "log"),
    "dropout": (0.0, 0.5, "linear"),
    "id_dropout": (3.0, 300.0, "log"),
    "match_shares": (False, True, "either"),
}


def draw_settings(trials):
    """Settings to try: the command's own, then `trials` drawn at random.

    More trials begin with the same settings, so that a longer search goes on.

    Args:
        trials: number of settings to draw.

    Returns:
        list of dicts flag → value; the first is empty.
    """
    rng = np.random.default_rng(0)
    settings = [{}]
    for _ in range(trials):
        drawn = {}
        for name, (low, high, scale) in SPACE.items():
            place = rng.random()
            if scale == "either":
                drawn[name] = place < 0.5
                continue
            value = low + place * (high - low)
            if scale == "log":
                value = low * (high / low) ** place
            # What is printed is what was trained with.
            drawn[name] = float(f"{value:.2g}")
        settings.append(drawn)
    return settings


def written(arm, settings):
    """The settings that an arm's model reads as flags: name → `--name=value`."""
    reads = arm.configuration.values()
    return {n: f"--{n}={value}" for n, value in settings.items() if n in reads}


def values_of(arm, settings):
    """The values of the searched flags in a run; dict name → float or bool."""
    values = arm.configuration.values()
    return {n: {**values, **settings}[n] for n in SPACE if n in values}


def check_can_choose(data_dir):
    """Raises an `InputError` if the validation split has one label only, so no AUC."""
    lacks = missing_label(DataFolder(data_dir), "validation")
    if lacks:
        raise InputError(f"--search_trials: {lacks}; set it to 0")


def check_same_budget(arms):
    """Every arm is searched alike: none may set by itself what the search sets.

    Raises:
        InputError: names the arms and the flag.
    """
    for name in SPACE:
        reading = [arm for arm in arms if name in arm.flags]
        for arm in reading[1:]:
            if arm.flags[name] != reading[0].flags[name]:
                raise InputError(
                    f"--compare: arms {reading[0].label!r} and {arm.label!r} differ "
                    f"in --{name}, which the search sets; set --search_trials=0, or "
                    "leave it out"
                )


def kept(aucs):
    """Places of the settings that are tried on all of the data.

    Args:
        aucs: validation AUC after training on a third of them, of the command's own
            settings and of those drawn; `None` is a failed run.

    Returns:
        list of int, ascending: 0, and the best third of the others, rounded up.
    """
    drawn = np.asarray(aucs[1:], float)
    order = np.argsort(-drawn, kind="stable")  # NaN is last
    best_third = [place + 1 for place in order[: -(-len(drawn) // 3)]]
    return [0, *sorted(p for p in best_third if aucs[p] is not None)]


def best(validation_aucs):
    """Place of the highest validation AUC, the first of equals.

    Args:
        validation_aucs: list of float, `None` where there is none.

    Returns:
        int, `None` if there is none at all.
    """
    aucs = np.asarray(validation_aucs, float)
    return None if np.isnan(aucs).all() else int(np.nanargmax(aucs))
