"""The plots of a comparison, PNG; needs matplotlib, the extra `[compare]`."""

import pathlib

from matplotlib.figure import Figure

from hccm_tf.atomic import new_file
from hccm_tf.comparison.runs import read_history


def write_plots(result, run_dirs, folder):
    """Writes `auc.png`, `gains.png` and `learning_curves.png`.

    Args:
        result: dict of `hccm_tf.comparison.results.collect`.
        run_dirs: for each arm the folders of its runs.
        folder: where to write.
    """
    labels = [arm["label"] for arm in result["arms"]]
    histories = [[read_history(path) for path in arm] for arm in run_dirs]
    figures = {
        "auc.png": _aucs(result, labels),
        "gains.png": _gains(result["comparisons"]),
        "learning_curves.png": _learning_curves(labels, histories),
    }
    for name, figure in figures.items():
        with new_file(pathlib.Path(folder) / name) as file:
            figure.savefig(file, format="png", dpi=120)


def _rows(names):
    """A figure with one row for each name, the first on top, and its axes."""
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    return figure, axes


def _aucs(result, labels):
    figure, axes = _rows(labels)
    for place, arm in enumerate(result["arms"]):
        seeds = [run["test"]["auc"] for run in arm["runs"]]
        axes.plot(seeds, [place] * len(seeds), "o", color=f"C{place}", alpha=0.5)
        axes.plot(arm["test"]["auc"]["mean"], place, "|", color="black", ms=18, mew=2)
    title = "Test AUC: seeds and their mean"
    if result["oracle"]:
        # On the axis it would press the arms together.
        title += f" (oracle: {result['oracle']['auc']:.4f})"
    axes.set_xlabel(title)
    return figure


def _gains(comparisons):
    figure, axes = _rows([f"{r['arm']}\nover {r['base']}" for r in comparisons])
    figure.set_size_inches(8, 1.2 + 0.65 * len(comparisons))
    for place, row in enumerate(comparisons):
        color = "C7" if row["kind"] == "control" else "C0"
        axes.plot(row["interval"], [place, place], color=color, lw=2)
        axes.plot(row["gain"], place, "D", color=color)
        seeds = row["gain_by_seed"]
        axes.plot(seeds, [place] * len(seeds), "o", color="black", ms=3, alpha=0.5)
    axes.axvline(0, color="black", lw=1)
    axes.set_xlabel("AUC gain: mean over seeds, 95% interval; dots: each seed")
    return figure


def _learning_curves(labels, histories):
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (label, runs) in enumerate(zip(labels, histories, strict=True)):
        for run, history in enumerate(runs):
            if history is None:
                continue
            # One entry of the legend for each arm.
            style = {"color": f"C{place}", "alpha": 0.7, "marker": ".", "lw": 1.2}
            style["label"] = label if run == 0 else None
            left.plot(history["epoch"] + 1, history["val_auc"], **style)
            right.plot(history["epoch"] + 1, history["loss"], **style)
    for axes, title in ((left, "validation AUC"), (right, "training loss")):
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    return figure
