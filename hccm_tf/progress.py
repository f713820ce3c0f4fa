"""How far work is: a bar on a terminal, elsewhere a line now and then.

Work of a few seconds says nothing.
"""

import contextlib
import io
import sys
import threading

from tqdm import tqdm

DELAY = 2  # seconds before a bar appears
LINE_SECONDS = 30
LINE = "{desc}: {n_fmt} of {total_fmt}{unit}s, {rate_fmt}, {remaining} left"

# Functions of how much is done: the innermost work's is the last.
_listeners = []
# One for each `silent` that holds.
_silences = []
_lock = threading.RLock()


class _Bar(tqdm):
    # No thread, which a bar of coarse steps does not need.
    monitor_interval = 0


# By itself a lock among processes.
_Bar.set_lock(_lock)


class _Lines:
    """A file on which each state of a bar becomes a line."""

    def write(self, text):
        if text.strip():
            print(text.strip(), file=sys.stderr)

    def flush(self):
        sys.stderr.flush()


@contextlib.contextmanager
def progress(title, total, unit):
    """Shows how far the work of the block is, as `advance` tells.

    Args:
        title: str, such as `"reading"`.
        total: int, how many units the work is of, about; `None` if that is not known.
        unit: str, in the singular.
    """
    form = {"delay": DELAY, "dynamic_ncols": True}
    if not sys.stderr.isatty():
        often = {"delay": LINE_SECONDS, "mininterval": LINE_SECONDS}
        form = {"bar_format": LINE, "file": _Lines(), **often}
    with _Bar(
        desc=title,
        total=total,
        unit=f" {unit}",
        unit_scale=True,
        miniters=1,
        disable=bool(_silences),
        **form,
    ) as bar:
        with listening(bar.update):
            yield


@contextlib.contextmanager
def silent():
    """Says nothing in its block: no progress, and nothing on standard output."""
    _silences.append(True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        _silences.pop()


@contextlib.contextmanager
def listening(listener):
    """Tells a function of int how much is done, each time that `advance` is called."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def advance(count):
    """Tells that so many more units are done, if anyone listens."""
    with _lock:
        if _listeners:
            _listeners[-1](count)
