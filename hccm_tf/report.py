"""Prints the test metrics of runs side by side.

    python -m hccm_tf.report --oracle=SHOP/oracle.json RUN RUN ...

`--oracle` adds the ceiling of a synthetic shop, and to each run after the first the
share of the oracle's AUC headroom over the first that it captures.
"""

import json
import pathlib

from absl import app, flags

from hccm_tf.errors import InputError, report_input_errors

FLAGS = flags.FLAGS


def _read(path):
    try:
        return json.loads(pathlib.Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error


def table(runs, oracle=None):
    """The report as lines of a Markdown table.

    Args:
        runs: contents of `metrics.json`, the baseline first.
        oracle: test metrics of the oracle, or `None`.

    Returns:
        list of str.
    """
    lines = [
        "| model | AUC | GAUC | log loss | calibration | examples/s | headroom |",
        "|---|---|---|---|---|---|---|",
    ]
    baseline = runs[0]["test"]["auc"]
    rows = [(r["model"], r["test"], f"{r['examples_per_second']:.0f}") for r in runs]
    if oracle:
        rows.append(("oracle", oracle, ""))
    for name, test, speed in rows:
        share = ""
        if oracle and name != rows[0][0]:
            share = f"{(test['auc'] - baseline) / (oracle['auc'] - baseline):.0%}"
        numbers = (f"{test[k]:.4f}" for k in ("auc", "gauc", "log_loss", "calibration"))
        lines.append(f"| {' | '.join([name, *numbers, speed, share])} |")
    return lines


def main(argv):
    """Runs the command line."""
    with report_input_errors():
        if len(argv) < 2:
            raise InputError("name at least one run folder")
        runs = [_read(pathlib.Path(path) / "metrics.json") for path in argv[1:]]
        print("\n".join(table(runs, _read(FLAGS.oracle) if FLAGS.oracle else None)))


if __name__ == "__main__":
    flags.DEFINE_string("oracle", None, "oracle.json of make_demo.")
    app.run(main)
