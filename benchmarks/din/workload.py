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
# What the impressions of a request do not share.
CANDIDATE = ("item_id", *(f"feature_{number}" for number in range(12)))
BATCHES = 16


def long_tail(rng, count):
    """Lengths of histories: log-normal, median 15, clipped to 1 to 100."""
    return np.clip(rng.lognormal(np.log(15), 1, count).astype(np.int32), 1, MAX_HISTORY)


def batches(lengths, request_size):
    """Random batches of requests of ids, 1 to size − 1 and 0 for padding.

    Args:
        lengths: `"full"`, histories of 100 clicks; or `"long_tail"`, see there.
        request_size: N, impressions of a request, which share user and history.

    Returns:
        list of `(features, history, length, label)`: dict of int32 `[R]`, or `[R, N]`
        for those of `CANDIDATE`; int32 `[R, 100]` padded at the end, int32 `[R]` and
        float32 `[R, N]`.
    """
    rng = np.random.default_rng(0)
    result = []
    for _ in range(BATCHES):
        one = (BATCH_SIZE // request_size,)
        many = (*one, request_size)
        features = {
            name: rng.integers(1, size, many if name in CANDIDATE else one, np.int32)
            for name, size in SIZES.items()
        }
        history = rng.integers(1, ITEMS, (*one, MAX_HISTORY), np.int32)
        length = np.full(one, MAX_HISTORY, np.int32)
        if lengths == "long_tail":
            length = long_tail(rng, *one)
        history[np.arange(MAX_HISTORY) >= length[:, None]] = 0
        label = rng.integers(0, 2, many).astype(np.float32)
        result.append((features, history, length, label))
    return result


def flat(batches):
    """The same impressions, each with a copy of its request's user and history."""
    result = []
    for features, history, length, label in batches:
        copies = label.shape[1]
        features = {
            name: ids.reshape(-1) if name in CANDIDATE else ids.repeat(copies)
            for name, ids in features.items()
        }
        shared = history.repeat(copies, axis=0), length.repeat(copies)
        result.append((features, *shared, label.reshape(-1)))
    return result


def stacked(batches):
    """One `(features, history, length, label)` of arrays `[BATCHES, B, ...]`."""
    features, *others = zip(*batches, strict=True)
    columns = {name: np.stack([f[name] for f in features]) for name in SIZES}
    return columns, *map(np.stack, others)


def serve(make_train, by_request=False):
    """Trains as many steps as each line of the standard input says.

    The command line is the workload's lengths and size of requests, the attention
    unit's activation (`dice` or `relu`) and the file descriptor for answers. Answers
    each line with the seconds that the steps took; the first answer is the number of
    parameters.

    Args:
        make_train: function from batches and the activation to
            `(train, num_parameters)`; `train(steps)` takes so many training steps.
        by_request: whether it takes requests, and not each impression as a row.
    """
    lengths, request_size, activation, descriptor = sys.argv[1:5]
    answers = open(int(descriptor), "w")
    work = batches(lengths, int(request_size))
    train, num_parameters = make_train(work if by_request else flat(work), activation)
    print(json.dumps(num_parameters), file=answers, flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        train(int(line))
        print(json.dumps(time.perf_counter() - begin), file=answers, flush=True)
