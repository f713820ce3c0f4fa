"""Prints the test metrics of runs side by side.

    python -m hccm_tf.report --oracle=SHOP/oracle.json RUN RUN ...

`--oracle` adds the ceiling of a synthetic shop, and to each run after the first the
share of the oracle's AUC headroom over the first that it captures.
"""

import pathlib

from absl import flags

from hccm_tf.commands import run
from hccm_tf.errors import InputError
from hccm_tf.oracle import METRICS, headroom, read_oracle
from hccm_tf.run_folder import RunFolder

FLAGS = flags.FLAGS


def row_names(folders, models):
    """What the rows are called: model names, or what tells runs of one model apart.

    Args:
        folders: list of `pathlib.Path`, the runs.
        models: list of str, their models.
    """
    resolved = [folder.resolve() for folder in folders]
    choices = models, [f.name for f in resolved], [str(f) for f in resolved]
    for names in choices:
        if len(set(names)) == len(names):
            return names
    return choices[-1]


def table(names, metrics, oracle=None):
    """The report as lines of a Markdown table.

    Args:
        names: list of str, what the rows are called.
        metrics: list of dicts, what `RunFolder.read_metrics` returns of each; that of
            the baseline first.
        oracle: dict, test metrics of the oracle, or `None`.

    Returns:
        list of str.
    """
    header = ["model", "AUC", "GAUC", "log loss", "calibration", "examples/s"]
    header += ["headroom"] * bool(oracle)
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    rows = [
        (name, found["test"], f"{found['examples_per_second']:.0f}")
        for name, found in zip(names, metrics, strict=True)
    ]
    if oracle:
        rows.append(("oracle", oracle, ""))
    baseline = rows[0][1]["auc"]
    for place, (name, test, speed) in enumerate(rows):
        cells = [name, *(f"{test[column]:.4f}" for column in METRICS), speed]
        if oracle:
            share = headroom(test["auc"], baseline, oracle["auc"])
            cells.append(share if place else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _read_metrics(folder):
    run = RunFolder(folder)
    metrics = run.read_metrics()
    try:
        [metrics["test"][column] for column in METRICS]
        metrics["model"], metrics["examples_per_second"]
        return metrics
    except (KeyError, TypeError) as error:
        raise InputError(f"{run.metrics}: no metrics of a run ({error!r})") from error


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string(
        "oracle", None, "The oracle.json of make_demo. By default there is no ceiling."
    )


def main(words):
    """Runs the command line."""
    if not words:
        raise InputError("name at least one run folder")
    folders = [pathlib.Path(word) for word in words]
    metrics = [_read_metrics(folder) for folder in folders]
    names = row_names(folders, [found["model"] for found in metrics])
    oracle = read_oracle(FLAGS.oracle) if FLAGS.oracle else None
    print("\n".join(table(names, metrics, oracle)))


if __name__ == "__main__":
    run(main, define_flags, words="RUN")
