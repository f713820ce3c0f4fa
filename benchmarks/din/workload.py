"""The work that every side of `din_vs_peers.py` does, and how it is told to.

Only NumPy, because each side runs in an environment of its own.
"""

import json
import sys
import time

import numpy as np

BATCH_SIZE = 1024
MAX_HISTORY = 100
EMBEDDING_DIM = 8
HIDDEN_UNITS = (400, 160, 80)
ATTENTION_HIDDEN_UNITS = (80, 40)
LEARNING_RATE = 1e-3
USERS, ITEMS, OTHERS = 1_000_000, 100_000, 10_000
# 25 features; the history shares the table of item_id.
SIZES = {"user_id": USERS, "item_id": ITEMS} | {
    f"feature_{number}": OTHERS for number in range(23)
}
BATCHES = 16


def long_tail(rng, count):
    """Lengths of histories: log-normal, median 15, clipped to 1 to 100."""
    return np.clip(rng.lognormal(np.log(15), 1, count).astype(np.int32), 1, MAX_HISTORY)


def batches(lengths):
    """Random batches of ids, 1 to size − 1 and 0 for padding.

    Args:
        lengths: `"full"`, histories of 100 clicks; or `"long_tail"`, see there.

    Returns:
        list of `(features, history, length, label)`: dict of int32 `[B]`, int32
        `[B, 100]` padded at the end, int32 `[B]` and float32 `[B]`.
    """
    rng = np.random.default_rng(0)
    result = []
    for _ in range(BATCHES):
        features = {
            name: rng.integers(1, size, BATCH_SIZE).astype(np.int32)
            for name, size in SIZES.items()
        }
        history = rng.integers(1, ITEMS, (BATCH_SIZE, MAX_HISTORY)).astype(np.int32)
        length = np.full(BATCH_SIZE, MAX_HISTORY, np.int32)
        if lengths == "long_tail":
            length = long_tail(rng, BATCH_SIZE)
        history[np.arange(MAX_HISTORY) >= length[:, None]] = 0
        label = rng.integers(0, 2, BATCH_SIZE).astype(np.float32)
        result.append((features, history, length, label))
    return result


def stacked(batches):
    """One `(features, history, length, label)` of arrays `[BATCHES, B, ...]`."""
    features, *others = zip(*batches, strict=True)
    columns = {name: np.stack([f[name] for f in features]) for name in SIZES}
    return columns, *map(np.stack, others)


def serve(make_train):
    """Trains as many steps as each line of the standard input says.

    The command line is the workload's lengths, the attention unit's activation (`dice`
    or `relu`) and the file descriptor for answers. Answers each line with the seconds
    that the steps took; the first answer is the number of parameters.

    Args:
        make_train: function from `batches(...)` and the activation to
            `(train, num_parameters)`; `train(steps)` takes so many training steps.
    """
    lengths, activation, descriptor = sys.argv[1:4]
    answers = open(int(descriptor), "w")
    train, num_parameters = make_train(batches(lengths), activation)
    print(json.dumps(num_parameters), file=answers, flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        train(int(line))
        print(json.dumps(time.perf_counter() - begin), file=answers, flush=True)
