"""What the report of a comparison says, section by section; see `markdown`, `page`."""

from typing import NamedTuple

from hccm_tf.comparison.search import SPACE
from hccm_tf.models import Trees
from hccm_tf.oracle import headroom

SIGNIFICANT = 0.05
# With fewer seeds their variance is hardly known.
SEEDS_FOR_A_VERDICT = 3

HOW = """\
Mean ± sample standard deviation over the seeds {seeds}; {impressions} test
impressions of {users} users. AUC gains: a paired bootstrap with {replicates}
replicates gives their variance. Each draws as many users as there are, and one seed
less than there are, with replacement, the same for both arms, and takes the difference
of the mean AUCs over the seeds. Intervals and two-sided p-values are those of Student's
t, with fewer degrees of freedom the more of the variance is due to the seeds
(Satterthwaite); p is then corrected by Holm's method over all rows but controls. A
single seed is not resampled: what another would give is not in its intervals. Slices:
items by how often the training split shows them, thirds of the impressions of those
that it does show; thirds by the length of the history. Training: the steps alone,
without validation, the preparation of images, feature maps and projections, and
pretraining; of trees, an epoch is a tree and parameters are leaves."""


class Table(NamedTuple):
    """A table: its header, list of str, and its rows, lists of what `str` writes."""

    header: list
    rows: list


class Plot(NamedTuple):
    """Where a plot of `hccm_tf.comparison.plots` stands, by its name; what it shows."""

    name: str
    shows: str


def sections(result):
    """The report's sections, a list of `(heading, parts)`; the first has its title.

    A part is a `Table`, a `Plot` or a paragraph. Text between ** is strong.

    Args:
        result: dict of `hccm_tf.comparison.results.collect`.
    """
    labels = [arm["label"] for arm in result["arms"]]
    networks = [label for label in labels if label.split()[0] != Trees.name]
    steps = [row["arm"] for row in result["comparisons"] if row["kind"] == "step"]
    order = [(networks or labels)[0], *steps]
    auc = Plot("auc", "Test AUC of each arm, its seeds and their mean")
    gains = Plot("gains", "AUC gains with their 95% intervals")
    slices = Plot("slices", "AUC of each arm on the slices of the test split")
    curves = (
        Plot("val_auc", "Validation AUC of each arm by epoch"),
        Plot("loss", "Training loss of each arm by epoch"),
    )
    return [
        (f"Comparison: {' < '.join(order)}", [*_verdicts(result, order)]),
        ("Test metrics", [_metrics(result), auc]),
        ("AUC gains", [_comparisons(result), gains]),
        ("Slices of the test split, AUC", [_slices(result), slices]),
        ("Training", [_costs(result), *curves]),
        ("Settings", [*_settings(result)]),
        ("How the figures are made", [_how(result)]),
    ]


def _how(result):
    seeds = ", ".join(map(str, result["seeds"]))
    return HOW.format(**{**result, "seeds": seeds})


def _number(value, digits=4):
    """Mean ± sd; `None`: a slice without AUC."""
    if value is None:
        return "one label only"
    text = f"{value['mean']:.{digits}f}"
    return text if value["sd"] is None else f"{text} ± {value['sd']:.{digits}f}"


def _gain(row):
    low, high = row["interval"]
    text = f"{row['gain']:+.4f}, 95% [{low:+.4f}, {high:+.4f}]"
    # It may say no where the interval, which is of this row alone, says yes.
    p_holm = row["p_holm"]
    return text if p_holm is None else f"{text}, corrected p {p_holm:.4f}"


def is_shown(row):
    """Whether a comparison shows a gain."""
    return row["gain"] > 0 and row["p_holm"] < SIGNIFICANT


def _verdicts(result, order):
    steps = [row for row in result["comparisons"] if row["kind"] == "step"]
    missing = [row for row in steps if not is_shown(row)]
    if len(result["seeds"]) < SEEDS_FOR_A_VERDICT:
        yield f"**No verdict**: it takes --seeds={SEEDS_FOR_A_VERDICT} or more."
        return
    if steps and not missing:
        yield (
            f"**The order {' < '.join(order)} holds**: each step gains AUC at p < "
            f"{SIGNIFICANT}, corrected."
        )
    elif steps:
        names = "; ".join(f"{r['arm']} over {r['base']} {_gain(r)}" for r in missing)
        yield (
            f"**The order {' < '.join(order)} is not shown.** No gain at p < "
            f"{SIGNIFICANT}: {names}."
        )
    for row in result["comparisons"]:
        if row["kind"] == "control":
            gains, why = "is not shown to gain", ""
            if row["interval"][0] > 0:
                gains, why = "GAINS", ", which is not due to what the photos show"
            both = f"{row['arm']} {gains} over {row['base']}"
            yield f"Control: **{both}**: {_gain(row)}{why}."
        if row["kind"] in ("photos", "trees"):
            gains = "gains" if is_shown(row) else "is NOT shown to gain"
            base = row["base"]
            if row["kind"] == "photos":
                base = "the same with shuffled photos"
            yield f"**{row['arm']} {gains} over {base}**: {_gain(row)}."


def _metrics(result):
    oracle = result["oracle"]
    first = result["arms"][0]["test"]["auc"]["mean"]
    header = ["arm", "AUC", "GAUC", "log loss", "calibration"]
    rows = [
        [arm["label"], *map(_number, arm["test"].values())] for arm in result["arms"]
    ]
    if oracle:
        header.append("headroom")
        for row, arm in zip(rows, result["arms"], strict=True):
            row.append(headroom(arm["test"]["auc"]["mean"], first, oracle["auc"]))
        names = result["arms"][0]["test"]
        whole = headroom(oracle["auc"], first, oracle["auc"])
        rows.append(["oracle", *(f"{oracle[name]:.4f}" for name in names), whole])
    return Table(header, rows)


def _comparisons(result):
    header = ["arm", "against", "", "gain", "95%", "seeds with a gain", "p", "p, Holm"]
    rows = []
    for row in result["comparisons"]:
        low, high = row["interval"]
        seeds = row["gain_by_seed"]
        # The p-values of fewer seeds are of these trainings, not of the models.
        enough = len(seeds) >= SEEDS_FOR_A_VERDICT
        p_values = [row["p"], row["p_holm"]] if enough else [None, None]
        rows.append(
            [
                *(row["arm"], row["base"], row["kind"], f"{row['gain']:+.4f}"),
                f"{low:+.4f} to {high:+.4f}",
                f"{sum(gain > 0 for gain in seeds)} of {len(seeds)}",
                *("" if p is None else f"{p:.4f}" for p in p_values),
            ]
        )
    return Table(header, rows)


def _slices(result):
    header = ["slice", "impressions", *(arm["label"] for arm in result["arms"])]
    rows = [
        [part["slice"], part["impressions"], *map(_number, part["auc"])]
        for part in result["slices"]
        if part["impressions"]
    ]
    return Table(header, rows)


def _costs(result):
    header = ["arm", "examples/s", "seconds", "epochs", "parameters"]
    rows = []
    for arm in result["arms"]:
        speed, seconds, epochs, parameters = arm["training"].values()
        rows.append(
            [
                arm["label"],
                *(_number(speed, 0), _number(seconds, 1), _number(epochs, 1)),
                f"{parameters['mean']:,.0f}",
            ]
        )
    return Table(header, rows)


def _settings(result):
    arms = result["arms"]
    rows = [[arm["label"], *_searched(arm["settings"])] for arm in arms]
    yield Table(["arm", *SPACE], rows)
    # Trees read none of the settings.
    tried = max((arm["trials"] for arm in arms), key=lambda t: len(t[0]["settings"]))
    trials = len(tried)
    if not tried[0]["settings"]:
        yield "Nothing of trees is searched."
        return
    if trials == 1:
        yield "No search: these are the command's own."
        return
    yield (
        f"Chosen on validation with seed {result['seeds'][0]}, from the same {trials} "
        "settings for every arm, the first the command's own. Each was trained on a "
        "third of the users; then the first, and the best third of the others, on all "
        "(AUC after →):"
    )
    rows = [
        [*_searched(trial["settings"]), *(_trial(arm, place) for arm in arms)]
        for place, trial in enumerate(tried)
    ]
    yield Table([*SPACE, *(arm["label"] for arm in arms)], rows)
    gains = []
    for arm in arms:
        own, auc = (
            arm["trials"][place]["validation_auc"] for place in (0, arm["chosen_trial"])
        )
        if own is not None and arm["settings"]:
            gains.append(f"{arm['label']} {auc - own:+.4f}")
    if gains:
        yield (
            f"Gained on validation over the command's own settings: {', '.join(gains)}."
        )


def _searched(settings):
    """The values of what a search sets; nothing of what a model does not read."""
    return [settings.get(name, "") for name in SPACE]


def _trial(arm, place):
    trial = arm["trials"][place]
    aucs = [trial["third_auc"], trial["validation_auc"]]
    text = " → ".join(f"{auc:.4f}" for auc in aucs if auc is not None) or "failed"
    return f"**{text}**" if arm["chosen_trial"] == place else text
