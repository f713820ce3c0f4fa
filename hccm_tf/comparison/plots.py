"""The plots of a comparison; needs matplotlib, the extra `[compare]`."""

import base64
import io
import textwrap

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hccm_tf.comparison.runs import read_history

WIDTH = 6.0  # inches; a telephone shows it at two thirds of its size, still legible
LABEL = 28  # characters of a line
MARKERS = "osD^v"  # ten arms have the first, in ten colours
# Texts as paths: the reader's fonts do not matter. The same figures give the same page.
STYLE = {"svg.fonttype": "path", "svg.hashsalt": "hccm_tf", "font.size": 10}


def draw(result, run_dirs):
    """The plots of a comparison.

    Args:
        result: dict of `hccm_tf.comparison.results.collect`.
        run_dirs: for each arm the folders of its runs.

    Returns:
        dict from the name of a plot to its `data:` URI, an SVG; without those that have
        nothing to show.
    """
    labels = [arm["label"] for arm in result["arms"]]
    with matplotlib.rc_context(STYLE):
        figures = {
            "auc": _aucs(result, labels),
            "gains": _gains(result["comparisons"]),
            "slices": _slices(result["slices"], labels),
        }
        histories = [[read_history(path) for path in arm] for arm in run_dirs]
        for metric, title in (("val_auc", "validation AUC"), ("loss", "training loss")):
            curves = [
                None if runs[0] is None else over_seeds(runs, metric)
                for runs in histories
            ]
            if any(curve is not None for curve in curves):
                figures[metric] = _learning_curves(curves, labels, title)
        return {name: _data_uri(figure) for name, figure in figures.items()}


def over_seeds(histories, metric):
    """A learning curve over an arm's seeds.

    Args:
        histories: list of data frames of `read_history`, of the runs.
        metric: name of a column.

    Returns:
        data frame by epoch, from 1: `mean`, `min`, `max` and `count`, of the runs that
        trained so long.
    """
    rows = pd.concat(histories)
    return rows.groupby(rows.epoch + 1)[metric].agg(["mean", "min", "max", "count"])


def _data_uri(figure):
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    encoded = base64.b64encode(content.getvalue()).decode()
    return f"data:image/svg+xml;base64,{encoded}"


def _style(place):
    """Colour and marker of the arm of this place."""
    marker = MARKERS[place // 10 % len(MARKERS)]
    return {"color": f"C{place % 10}", "marker": marker}


def _rows(names, height):
    """A figure with one row for each name, the first on top, and its axes."""
    figure = Figure(figsize=(WIDTH, 1.2 + height * len(names)), layout="constrained")
    axes = figure.subplots()
    names = ["\n".join(_lines(n, LABEL) for n in name) for name in names]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    return figure, axes


def _lines(label, width):
    # Flags stay whole.
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(label, width, **options)


def _legend(figure, labels):
    """A legend below, with an entry for each arm of `labels`, dict place → label."""
    handles = [
        Line2D([], [], **_style(place), label=_lines(label, 34))
        for place, label in labels.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)


def _aucs(result, labels):
    figure, axes = _rows([[label] for label in labels], 0.45)
    for place, arm in enumerate(result["arms"]):
        seeds = [run["test"]["auc"] for run in arm["runs"]]
        axes.plot(seeds, [place] * len(seeds), ls="", alpha=0.5, **_style(place))
        axes.plot(arm["test"]["auc"]["mean"], place, "|", color="black", ms=18, mew=2)
    title = "test AUC: seeds and their mean"
    if result["oracle"]:
        # On the axis it would press the arms together.
        title += f" (oracle: {result['oracle']['auc']:.4f})"
    axes.set_xlabel(title)
    return figure


def _gains(comparisons):
    names = [[r["arm"], f"over {r['base']}"] for r in comparisons]
    figure, axes = _rows(names, 0.7)
    for place, row in enumerate(comparisons):
        color = "C7" if row["kind"] == "control" else "C0"
        axes.plot(row["interval"], [place, place], color=color, lw=2)
        axes.plot(row["gain"], place, "D", color=color)
        seeds = row["gain_by_seed"]
        axes.plot(seeds, [place] * len(seeds), "o", color="black", ms=3, alpha=0.5)
    axes.axvline(0, color="black", lw=1)
    axes.set_xlabel(
        "AUC gain: mean over seeds, 95% interval\ndots: seeds; grey: controls"
    )
    return figure


def _slices(slices, labels):
    names = [[part["slice"]] for part in slices]
    figure, axes = _rows(names, 0.3 + 0.12 * len(labels))
    shifts = np.linspace(-0.3, 0.3, len(labels))
    for row, part in enumerate(slices):
        if row % 2:
            axes.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, lw=0)
        for place, (auc, shift) in enumerate(zip(part["auc"], shifts, strict=True)):
            if auc is not None:
                style = {**_style(place), "ms": 5, "lw": 1.2}
                axes.errorbar(auc["mean"], row + shift, xerr=auc["sd"], **style)
    axes.set_xlabel("AUC: mean ± standard deviation over seeds")
    _legend(figure, dict(enumerate(labels)))
    return figure


def _learning_curves(curves, labels, title):
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes, shown = figure.subplots(), {}
    for place, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        if curve is None:
            continue
        shown[place], style = label, {**_style(place), "ms": 4, "lw": 1.5}
        # Where some seeds have stopped, the others' mean is another one.
        whole = curve[curve["count"] == curve["count"].max()]
        axes.plot(curve.index, curve["mean"], ls=":", **style)
        axes.plot(whole.index, whole["mean"], **style)
        axes.fill_between(
            curve.index,
            curve["min"],
            curve["max"],
            color=style["color"],
            alpha=0.12,
            lw=0,
        )
    axes.set_title(f"{title}: mean over seeds, lowest to highest", fontsize=10)
    axes.set_xlabel("epoch; dotted where not all seeds went on")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    _legend(figure, shown)
    return figure
