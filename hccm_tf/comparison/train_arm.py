"""Trains one arm of a comparison: its search, then its seeds."""

import dataclasses

from hccm_tf.comparison.runs import contents_of, run_once
from hccm_tf.comparison.search import best, kept, values_of, written
from hccm_tf.progress import advance


@dataclasses.dataclass(frozen=True)
class TrainedArm:
    """An arm after its search and its runs.

    Args:
        arm: `Arm`.
        trials: list of dicts `{"settings", "third_auc", "validation_auc"}`: the AUC on
            validation after training on a third of the users and on all; `None` if that
            run failed or was not made.
        chosen: place of the trial whose settings the runs have; `None` if all failed.
        run_dirs: folder of each seed's run.
        metrics: content of each run's `metrics.json`, `None` of a failed one.
    """

    arm: object
    trials: list
    chosen: int | None
    run_dirs: list
    metrics: list


def num_runs(arm, settings, seeds):
    """The number of runs of `train_arm`, if none fails."""
    drawn = len(set(_first_alike(arm, settings))) - 1
    return len(seeds) + (1 + drawn + -(-drawn // 3) if drawn else 0)


def train_arm(folder, arm, settings, seeds, third, train):
    """Searches the settings of an arm, and trains it with every seed.

    Args:
        folder: `pathlib.Path` of the comparison.
        arm: `Arm`.
        settings: list of `hccm_tf.comparison.search.draw_settings`.
        seeds: list of int; the search has the first.
        third: path of the data of `hccm_tf.comparison.third`; without a search `None`.
        train: function of flags and the run's folder, see `run_once`.

    Returns:
        `TrainedArm`.
    """
    # Once, as all of the data is read for it.
    contents = contents_of(arm.flags)

    def run_dir(trial, name):
        return folder / "runs" / arm.folder / f"trial-{trial}" / name

    def run(trial, name, seed, data=None):
        flags = {**arm.flags, **written(arm, settings[trial]), "seed": f"--seed={seed}"}
        metrics = run_once(run_dir(trial, name), flags, contents, train, data)
        outcome = "failed"
        if metrics:
            outcome = f"validation AUC {metrics['validation']['auc']:.4f}"
        said = name.replace("-", " ")
        print(f"{arm.label}, trial {trial}, {said}: {outcome}", flush=True)
        advance(1)
        return metrics

    def with_seed(trial, seed):
        return run(trial, f"seed-{seed}", seed)

    # Of a trial only the validation split counts. An arm that reads nothing of what the
    # search sets has one run for all of them.
    same = _first_alike(arm, settings)
    places, thirds = list(dict.fromkeys(same)), {}
    if len(places) > 1:
        thirds = {t: run(t, "third", seeds[0], third) for t in places}
        places = [places[p] for p in kept([_auc(thirds[t]) for t in places])]
    runs = {trial: with_seed(trial, seeds[0]) for trial in places}
    trials = [
        {
            "settings": values_of(arm, drawn),
            "third_auc": _auc(thirds.get(trial)),
            "validation_auc": _auc(runs.get(trial)),
        }
        for drawn, trial in zip(settings, same, strict=True)
    ]
    whole = [trial for trial, metrics in runs.items() if metrics]
    # Without a choice, validation may have one label only, and no AUC.
    chosen = whole[0] if len(whole) == 1 else best([_auc(runs.get(t)) for t in same])
    if chosen is None:
        return TrainedArm(arm, trials, None, [], [])
    run_dirs = [run_dir(chosen, f"seed-{seed}") for seed in seeds]
    metrics = [runs[chosen], *(with_seed(chosen, seed) for seed in seeds[1:])]
    return TrainedArm(arm, trials, chosen, run_dirs, metrics)


def _first_alike(arm, settings):
    """Of each of the settings the place of the first that is the same to an arm."""
    tried = [written(arm, drawn) for drawn in settings]
    return [tried.index(flags) for flags in tried]


def _auc(metrics):
    return metrics and metrics["validation"]["auc"]
