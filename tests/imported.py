"""What the server of `tests.processes` imports, quietly, as a command does.

Nothing that would hide that a module of the project does not import what it needs.
"""

# ruff: noqa: E402, F401, I001
import gc

import hccm_tf.commands

import keras
import pandas
import sklearn
import tensorflow

import tests.processes
from hccm_tf.preparation.beam import import_beam

import_beam()
# A graph has thousands of objects, which stay; what has been imported stays, too.
gc.set_threshold(20_000, 20, 50)
gc.freeze()
