"""Counts what the splits of a data folder hold."""

import collections

import numpy as np
import pandas as pd

from hccm_tf.data.labels import what_lacks


class Figures:
    """What is counted of a split.

    Attributes:
        requests: number of records.
        lengths: `Counter` of the impressions by the lengths of their histories.
        shares: `Counter`, number of impressions by what holds of them.
    """

    def __init__(self):
        self.requests = 0
        self.lengths = collections.Counter()
        self.shares = collections.Counter()

    @property
    def impressions(self):
        """Number of impressions."""
        return self.lengths.total()

    def add(self, batch):
        """Adds a dict of NumPy arrays as the function of `make_parser` returns it."""
        self.requests += batch["size"].size
        lengths = np.repeat(batch["length"], batch["size"])
        values, counts = np.unique(lengths, return_counts=True)
        self.lengths.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        self.shares.update(batch["shares"])

    def column(self):
        """Dict from what is reported to how it is written."""
        count = self.impressions
        column = {"impressions": f"{count}", "requests": f"{self.requests}"}
        if count:
            values = np.array(sorted(self.lengths))
            ends = np.cumsum([self.lengths[value] for value in values])
            middle = np.searchsorted(ends, [(count - 1) // 2, count // 2], "right")
            mean = sum(value * n for value, n in self.lengths.items()) / count
            column["candidates a request, mean"] = f"{count / self.requests:.2f}"
            column["history length, mean"] = f"{mean:.2f}"
            column["history length, median"] = f"{values[middle].mean():g}"
            column["history length, max"] = f"{values[-1]}"
        return column | {name: f"{n / count:.2%}" for name, n in self.shares.items()}


def table(splits):
    """Lines that describe the splits.

    Args:
        splits: dict, name → `Figures`.
    """
    columns = {split: figures.column() for split, figures in splits.items()}
    return pd.DataFrame(columns).fillna("").to_string().splitlines()


def missing_labels(splits):
    """Lines about the splits that lack clicks, or others.

    Args:
        splits: dict, name → `Figures`.
    """
    lines = []
    for split, figures in splits.items():
        clicks = figures.shares["click rate"]
        counts = {1: clicks, 0: figures.impressions - clicks}
        found = [label for label, count in counts.items() if count]
        if found and (lacks := what_lacks(split, found)):
            lines.append(lacks)
    return lines


def count_errors(summary_file, summary, splits):
    """Yields the splits that do not hold as much as the summary says.

    Args:
        summary_file: path, for the errors.
        summary: dict, its content.
        splits: dict, name → `Figures`.
    """
    requests = summary["requests"]
    for split in dict.fromkeys([*summary["splits"], *requests]):
        found = splits.get(split, Figures())
        found = found.impressions, found.requests
        expected = summary["splits"].get(split, 0), requests.get(split, 0)
        if found != expected:
            yield (
                f"{summary_file}: split {split} has {expected[0]} impressions in "
                f"{expected[1]} requests, but {found[0]} in {found[1]} could be read; "
                "build the examples again"
            )
