"""Cuts a request into batches and joins the answers."""

import numpy as np


def in_batches(ask, inputs, batch_size):
    """The answer to all rows, asked some rows at a time.

    Args:
        ask: function, name → array of some rows to name → array.
        inputs: name → array, with equal numbers of rows.
        batch_size: rows at a time, at most.

    Returns:
        dict, name → array. Where answers differ in width, as those of `explain` do,
        the narrower ones are filled up with 0.

    Raises:
        ValueError: if `inputs` or `batch_size` do not allow batches.
    """
    sizes = {name: len(value) for name, value in inputs.items()}
    if batch_size < 1 or len(set(sizes.values())) != 1:
        raise ValueError(
            "batches need a batch_size of at least 1 and inputs with equal numbers "
            f"of rows. Received: batch_size={batch_size}, rows {sizes}"
        )
    answers = []
    for start in range(0, max(*sizes.values(), 1), batch_size):
        rows = slice(start, start + batch_size)
        answers.append(ask({name: value[rows] for name, value in inputs.items()}))
    return {name: _join([a[name] for a in answers]) for name in answers[0]}


def _join(values):
    """Arrays one after the other, all as wide as the widest."""
    shape = np.max([value.shape for value in values], axis=0)
    padded = []
    for value in values:
        missing = [(0, size) for size in (shape - value.shape)[1:]]
        padded.append(np.pad(value, [(0, 0), *missing]))
    return np.concatenate(padded)
