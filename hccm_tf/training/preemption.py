"""SIGTERM, by which clusters take a machine back, noticed at a good moment."""

import concurrent.futures
import signal
import threading

LOOK_SECONDS = 0.1  # between two looks, while something is waited for


class Preempted(Exception):
    """The run was asked to end and can be continued."""


class Preemption:
    """Context in which SIGTERM is noted, and `check` tells of it.

    The signal itself raises nothing: it may come while TensorFlow traces a function,
    which would make another error of an exception, or leave half a state behind.

    Args:
        raises: `False` to go on after the signal: a worker that only takes part goes
            on until the one that writes has ended.
    """

    def __init__(self, raises=True):
        self._raises = raises
        self._received = False

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

    def check(self):
        """Raises `Preempted` if the signal came."""
        if self._received and self._raises:
            raise Preempted


def wait_for(function, check):
    """The result of a function that may wait long, unless `check` ends the wait.

    Args:
        function: called in a thread, which is left to itself where `check` raises.
        check: called every `LOOK_SECONDS`; what it raises is raised.
    """
    future = concurrent.futures.Future()

    def call():
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    while not future.done():
        check()
        concurrent.futures.wait([future], LOOK_SECONDS)
    return future.result()
