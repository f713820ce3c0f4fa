"""SIGTERM, by which clusters take a machine back, as an exception at a good moment."""

import contextlib
import signal
import threading


class Preempted(Exception):
    """The run was asked to end and can be continued."""


class Preemption:
    """Context in which SIGTERM raises `Preempted`, where the code inside allows it.

    Args:
        raises: `False` to go on after the signal: a worker that only takes part goes
            on until the one that writes has ended.
    """

    def __init__(self, raises=True):
        self._raises = raises
        self._received = self._at_once = False

    def __enter__(self):
        # Python lets only its main thread handle signals.
        self._handles = threading.current_thread() is threading.main_thread()
        if self._handles:
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *error):
        if self._handles:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, number, frame):
        self._received = True
        if self._at_once:
            self.check()

    def check(self):
        """Raises `Preempted` if the signal came."""
        if self._received and self._raises:
            raise Preempted

    @contextlib.contextmanager
    def at_once(self):
        """Lets the signal interrupt what is inside."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False
