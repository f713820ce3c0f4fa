"""Starts TensorFlow without the lines that it prints on every machine.

Its environment variable TF_CPP_MIN_LOG_LEVEL does not reach what it prints before its
log is set up. `TF_CPP_MIN_LOG_LEVEL=0` shows everything.
"""

import contextlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# That there is no GPU, and what its CPU could do if it were built anew. A driver that
# does not work has another code than 303.
NOISE = re.compile(
    r"WARNING: All log messages before absl::InitializeLog|"
    r"I\d{4} .*(cudart_stub|cpu_feature_guard|port\.cc)|"
    r"To enable the following instructions|"
    r"E\d{4} .*failed call to cuInit: .*\(303\)"
)


def quiet_tensorflow():
    """Makes this process, and those that it starts, import TensorFlow quietly."""
    if os.environ.get(LEVEL) == "0" or "tensorflow" in sys.modules:
        return
    os.environ.setdefault(LEVEL, "1")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as always, and wraps what loads it."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                with _without_noise():
                    execute(module)
                    # What it says of GPUs it says when it first looks for them.
                    sys.modules[name].config.list_physical_devices()

            spec.loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def _without_noise():
    """Holds back what is written to stderr, and writes all but the noise afterwards."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines(True):
                if not NOISE.match(line):
                    sys.stderr.write(line)
