"""What the benchmarks share: arms timed in turn, medians with their spread, a table."""

import itertools
import json
import pathlib
import time

import keras
import numpy as np
import pandas as pd


def seconds(function):
    """Wall time of a call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def training_step(model, batches):
    """A function that takes a training step on the next batch and waits for its end.

    Args:
        model: compiled `keras.Model`.
        batches: list of `(inputs, label)`, tensors in memory, taken in turn.
    """
    turn = itertools.cycle(batches)
    return lambda: model.train_on_batch(*next(turn))


def batch_seconds(dataset, batches):
    """Time of a batch in an input pipeline, which starts empty."""
    iterator = iter(dataset)
    next(iterator)
    return seconds(lambda: [next(iterator) for _ in range(batches)]) / batches


class _StepSeconds(keras.callbacks.Callback):
    """Without the first step, which waits for the input pipeline to start."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.begin = time.perf_counter()
        else:
            self.seconds = (time.perf_counter() - self.begin) / batch


def fit_seconds(model, dataset, batches):
    """Time of one of so many training steps in `fit`, after one that is not timed."""
    timer = _StepSeconds()
    model.fit(dataset, steps_per_epoch=batches + 1, callbacks=[timer], verbose=0)
    return timer.seconds


def alternate(arms, rounds):
    """Times functions in turn, so that what else the machine does meets all alike.

    Args:
        arms: dict from name to a function that waits for its own result.
        rounds: number of times that each is timed, after one call that is not.

    Returns:
        `pandas.DataFrame` of seconds, a row for each round, a column for each arm.
    """
    for function in arms.values():
        function()
    return pd.DataFrame(
        [{name: seconds(f) for name, f in arms.items()} for _ in range(rounds)]
    )


def summary(times):
    """Median and quartiles of each column of `alternate`, in milliseconds."""
    quartiles = times.quantile([0.5, 0.25, 0.75]).T * 1e3
    quartiles.columns = ["median ms", "quartile 1", "quartile 3"]
    return quartiles


def ratio(times, above, below):
    """Median of the rounds' ratios of two columns, and their quartiles."""
    values = times[above] / times[below]
    return tuple(np.quantile(values, [0.5, 0.25, 0.75]).tolist())


def report(tables, ratios, path=None):
    """Prints tables and ratios with their quartiles; writes them as JSON.

    Args:
        tables: dict from title to `pandas.DataFrame`.
        ratios: dict from what is divided to `(median, quartile, quartile)`, or to
            `(ratio,)` of one measurement.
        path: JSON file, or `None`.
    """
    for title, table in tables.items():
        print(title)
        print(table.round(3).to_string())
    for name, (median, *quartiles) in ratios.items():
        spread = " to ".join(f"{quartile:.3f}" for quartile in quartiles)
        print(f"{name}: {median:.3f}" + (f" ({spread})" if spread else ""))
    if path:
        content = {title: t.to_dict(orient="index") for title, t in tables.items()}
        content["ratios"] = ratios
        pathlib.Path(path).write_text(json.dumps(content, indent=2))
