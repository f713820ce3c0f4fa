"""What a command's user sees of TensorFlow's start, and what must not be hidden."""

import os
import subprocess
import sys
import textwrap

import pytest

from hccm_tf.quiet import LEVEL, NOISE

NOISY = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to "
    "STDERR",
    "I0000 00:00:1795667426.112216    2690 cudart_stub.cc:31] Could not find cuda "
    "drivers on your machine, GPU will not be used.",
    "E0000 00:00:1795667432.502143    2690 cuda_platform.cc:52] failed call to cuInit: "
    "INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)",
    "2026-11-26 04:59:51.028721: E external/local_xla/xla/stream_executor/cuda/"
    "cuda_fft.cc:485] Unable to register cuFFT factory: Attempting to register factory "
    "for plugin cuFFT when one has already been registered",
    "2026-11-26 05:00:21.780900: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38"
    "] TF-TRT Warning: Could not find TensorRT",
]
TELLING = [
    "E0000 00:00:1795667432.502143    2690 cuda_platform.cc:52] failed call to cuInit: "
    "INTERNAL: CUDA error: Failed call to cuInit: CUDA_ERROR_NO_DEVICE: none (100)",
    "W0000 00:00:1795667426.112216    2690 gpu_device.cc:2342] Cannot dlopen some GPU "
    "libraries.",
    "FutureWarning: the I0000 of a library",
]
# Like TensorFlow, it does not mind if it cannot write.
FAKE = """
import contextlib, os, sys
def write(*lines):
    with contextlib.suppress(OSError):
        os.write(2, "".join(f"{line}\\n" for line in lines).encode())
write(*LINES)
class config:
    def list_physical_devices():
        write(NOISY[2])
"""


def run(script, env=None):
    ours = {n: v for n, v in os.environ.items() if n != LEVEL}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        env={**ours, **(env or {})},
    )


@pytest.fixture
def fake(tmp_path):
    """Environment in which `tensorflow` is a module that prints, and maybe more."""

    def make(body=""):
        lines = [*NOISY[:2], *TELLING, *NOISY[3:]]
        (tmp_path / "tensorflow.py").write_text(
            f"NOISY, LINES = {NOISY}, {lines}\n{FAKE}\n{body}\n"
        )
        paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths)}

    return make


def test_what_is_noise():
    assert all(NOISE.match(line.encode()) for line in NOISY)
    assert not any(NOISE.match(line.encode()) for line in TELLING)


def test_the_noise_alone_is_hidden(fake):
    found = run("import hccm_tf.commands, tensorflow", fake())
    assert (found.returncode, found.stderr.splitlines()) == (0, TELLING)


@pytest.mark.parametrize("command", ["train_main", "hccm_tf.predict"])
def test_no_command_imports_tensorflow_before(fake, command):
    found = run(f"import {command}", fake("raise ImportError('it is only looked for')"))
    assert "it is only looked for" in found.stderr
    assert not any(line in found.stderr for line in NOISY)


def test_everything_is_shown_on_request(fake):
    found = run("import hccm_tf.commands, tensorflow", fake() | {LEVEL: "0"})
    assert set(NOISY) - set(found.stderr.splitlines()) == {NOISY[2]}
    assert set(TELLING) < set(found.stderr.splitlines())


def test_the_package_alone_hides_nothing(fake):
    found = run("import hccm_tf, tensorflow", fake())
    assert NOISY[0] in found.stderr.splitlines()


def test_python_writes_to_stderr_meanwhile(fake):
    env = fake(
        "import warnings\nwarnings.warn('mend me')\nprint('here', file=sys.stderr)"
    )
    found = run("import hccm_tf.commands, tensorflow", env)
    assert "UserWarning: mend me" in found.stderr
    assert found.stderr.splitlines()[-1] == "here"
    assert not any(line in found.stderr for line in NOISY)


def test_an_error_of_the_import_is_shown(fake):
    env = fake("raise ImportError('no such symbol')")
    found = run("import hccm_tf.commands, tensorflow", env)
    assert found.returncode == 1
    assert found.stderr.splitlines()[: len(TELLING)] == TELLING
    assert found.stderr.splitlines()[-1] == "ImportError: no such symbol"


def test_a_crash_of_the_import_says_where(fake):
    found = run("import hccm_tf.commands, tensorflow", fake("os.abort()"))
    assert found.returncode != 0
    assert "Fatal Python error: Aborted" in found.stderr
    assert "tensorflow.py" in found.stderr


@pytest.mark.parametrize(
    "before",
    [
        "import os; os.close(2)",
        "import os, sys; sys.stderr = None; os.close(2)",
        "import sys; sys.stderr.close()",
        "import io, sys; sys.stderr = io.StringIO()",
        "import tempfile; tempfile.tempdir = '/no/such/folder'",
    ],
)
def test_stderr_may_be_anything(fake, before):
    script = f"{before}\nimport hccm_tf.commands, tensorflow\nprint(tensorflow.config)"
    found = run(script, fake())
    assert found.returncode == 0
    assert "config" in found.stdout


def test_tensorflow_may_be_absent():
    script = """
    import importlib.util, sys
    import hccm_tf.commands
    sys.path.clear()
    print(importlib.util.find_spec("tensorflow"))
    """
    assert run(script).stdout == "None\n"


def test_tensorflow_starts_without_a_line():
    script = """
    import hccm_tf.commands
    import tensorflow as tf
    tf.constant(1) + 1
    """
    found = run(script)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
