"""A process that runs steps: it reads them from one pipe and answers on another."""

import os
import pickle
import signal
import sys
import traceback

from hccm_tf.errors import InputError, undecodable_rows_unsaid
from hccm_tf.progress import listening
from hccm_tf.quiet import quiet_tensorflow


def main():
    """Calls what stdin says until it ends, as it does when its parent is killed."""
    # Ctrl+C reaches the parent too, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_tensorflow()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with out as answers, undecodable_rows_unsaid():
        # What a step prints must not get among the answers.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        while True:
            try:
                function, number = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            with listening(lambda count: _answer(answers, count)):
                error = _call(function, number)
            _answer(answers, error)


def _answer(answers, content):
    pickle.dump(content, answers)
    answers.flush()


def _call(function, number):
    """Calls a step; `None`, or the error that it raised."""
    try:
        function(number)
    except InputError as error:
        return error
    except Exception:
        # The error itself may not be one that can be pickled.
        return RuntimeError(f"in a worker process: {traceback.format_exc()}")
    return None


if __name__ == "__main__":
    main()
