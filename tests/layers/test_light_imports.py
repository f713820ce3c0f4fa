"""The layers and optimizers where there are Keras, its backend and NumPy alone."""

import pathlib
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[2]
# What else the package is installed with. Keras itself needs absl, and JAX SciPy.
ABSENT = (
    *("PIL", "apache_beam", "etils", "google", "grpc", "matplotlib", "pandas"),
    *("pyarrow", "requests", "sklearn", "tensorboard", "tensorflow"),
    *("tensorflow_datasets", "tensorflow_serving", "torch"),
)
SCRIPT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import keras
import numpy as np
from hccm_tf.layers import DINAttention
from hccm_tf.optimizers import LazyAdam
import hccm_tf

assert hccm_tf.optimizers.LazyAdam is LazyAdam
assert hccm_tf.layers.DINAttention is DINAttention
layer = DINAttention((4,))
history = np.arange(24.0).reshape(2, 3, 4)
assert layer(history[:, 0], history).shape == (2, 4)
model = keras.Sequential([hccm_tf.layers.Embedding(5, 4), keras.layers.Dense(1)])
model.compile(LazyAdam(0.1), "mse")
before = model.layers[0](np.arange(5))
model.fit(np.array([1, 3]), np.ones((2, 1)), verbose=0)
moved = np.asarray(model.layers[0](np.arange(5)) - before).any(axis=-1)
assert moved.tolist() == [False, True, False, True, False], moved
print(sorted(set({ABSENT}) & set(sys.modules)))
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="hides TensorFlow")
def test_tensorflow_and_the_data_tools_packages_may_be_absent():
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (0, "[]\n"), found.stderr
