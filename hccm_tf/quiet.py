"""Starts TensorFlow without the lines that it prints on every machine.

TensorFlow's environment variable TF_CPP_MIN_LOG_LEVEL does not reach what it prints
before its log is set up. `TF_CPP_MIN_LOG_LEVEL=0` shows everything.
"""

import contextlib
import ctypes
import faulthandler
import functools
import importlib.abc
import os
import re
import sys
import tempfile

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# That there is no GPU, what the CPU could do if TensorFlow were built anew, and that it
# registers its own GPU libraries twice. Code 303 is that of a machine without a GPU's
# driver; a driver that does not work has others. And that float16 is computed without
# oneDNN where a processor has no instructions for it.
NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|"
    rb"I\d{4} .*(cudart_stub|cpu_feature_guard|port\.cc)|"
    rb"To enable the following instructions|"
    rb".*Unable to register cu\w+ factory: .* has already been registered|"
    rb".*TF-TRT Warning: Could not find TensorRT|"
    rb"E\d{4} .*failed call to cuInit: .*\(303\)|"
    rb"E\d{4} .*oneDNN supports DT_HALF only on platforms"
)


def quiet_tensorflow():
    """Makes this process import TensorFlow quietly."""
    if os.environ.get(LEVEL) == "0" or "tensorflow" in sys.modules:
        return
    os.environ.setdefault(LEVEL, "1")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


@functools.cache
def quiet_float16():
    """Lets oneDNN say what it says, once a process, of the first graph with float16."""
    if os.environ.get(LEVEL) == "0":
        return
    import tensorflow as tf

    with _without_noise(), tf.init_scope():
        tf.function(tf.identity)(tf.zeros([], tf.float16))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as always, and wraps what loads it."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                with _without_noise():
                    execute(module)
                    if not _has_gpu_driver():
                        # What it says of that it says when it first looks for GPUs.
                        sys.modules[name].config.list_physical_devices()

            spec.loader.exec_module = exec_module
        return spec


def _has_gpu_driver():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _without_noise():
    """Holds back what is written to stderr, and writes all but the noise afterwards."""
    with contextlib.ExitStack() as stack:
        try:
            stderr = os.dup(2)
            stack.callback(os.close, stderr)
            held = stack.enter_context(tempfile.TemporaryFile())
        except OSError:
            # There is no stderr, or nowhere to hold it.
            yield
            return
        _flush()
        os.dup2(held.fileno(), 2)
        if not faulthandler.is_enabled():
            # A crash, as on a CPU that is too old, takes what is held with it.
            faulthandler.enable(stderr)
            stack.callback(faulthandler.disable)
        try:
            yield
        finally:
            _flush()
            os.dup2(stderr, 2)
            held.seek(0)
            lines = [line for line in held if not NOISE.match(line)]
            with contextlib.suppress(OSError), open(2, "wb", closefd=False) as file:
                file.writelines(lines)


def _flush():
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.flush()
