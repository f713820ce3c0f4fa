"""What was made of each column, as people read it."""

import sys

from hccm_tf.data.feature import HISTORY
from hccm_tf.preparation.examples.column_choice import KEYS
from hccm_tf.preparation.examples.fit_schema import reports
from hccm_tf.preparation.examples.log_values import IDS

HEADER = ("column", "becomes", "values", "missing", "example", "because of")
LONGEST = 30


def warn(choices):
    """Names text that looks like numbers, before the work is done.

    Args:
        choices: name → `Choice`.
    """
    for name, choice in choices.items():
        if choice.hint:
            print(
                f"warning: column {name}: text that looks like numbers, such as "
                f"{choice.hint!r}, is taken as words; for numbers write 12.99, and, if "
                f"it is text in Parquet, give build_examples --numeric={name}",
                file=sys.stderr,
            )


def found_columns(job, schema, choices):
    """What was made of each column: name → dict; none of a schema that was fitted.

    Args:
        job: `Job`.
        schema: `Schema` as it was fitted.
        choices: name → `Choice`.
    """
    found = reports(job)
    columns = {}
    for name, choice in choices.items() if found else ():
        entry = columns[name] = {"becomes": None, "because": choice.why}
        if name in found:
            feature = schema[name]
            entry["becomes"] = f"{feature.kind} of {feature.dtype}"
            if f"{HISTORY}{name}" in schema:
                entry["becomes"] += ", with history"
            entry |= found[name]
            once = entry.pop("mostly_once") and name not in (*KEYS, *IDS)
            if once and feature.dtype == "int64":
                entry["because"] += f", most of them once: if amounts, --numeric={name}"
            if feature.is_float:
                entry["values"] = f"{feature.mean:.4g} ± {feature.std:.4g}"
            if name == "image":
                # It is a key here.
                del entry["example"]
    return columns


def lines(columns):
    """A table of `found_columns`, list of str."""
    rows = [HEADER]
    for name, found in columns.items():
        values, missing = found.get("values"), found.get("missing")
        example = found.get("example")
        if isinstance(example, float):
            example = f"{example:.6g}"
        example = "" if example is None else str(example)
        rows.append(
            (
                name,
                found["becomes"] or "left out",
                "" if values is None else str(values),
                "" if missing is None else f"{missing:.1%}",
                example if len(example) <= LONGEST else f"{example[: LONGEST - 1]}…",
                found["because"],
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) for text, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
