"""Bounds what threads hold at the same time."""

import contextlib
import threading


class Budget:
    """An amount of something, such as bytes, of which threads hold parts for a while.

    Args:
        total: int.
    """

    def __init__(self, total):
        self._total, self._held = total, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, amount):
        """Waits until so much is free; who wants more than all waits for all of it."""
        amount = min(amount, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._held + amount <= self._total)
            self._held += amount
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._changed.notify_all()
