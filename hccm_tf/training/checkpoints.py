"""Checkpoints of a training run: all that its next step depends on.

Keras' `save_weights` leaves out the states of random numbers and of metrics, without
which a run that goes on is not the run that was interrupted.
"""

import json
import pathlib
import re
import shutil
import warnings
import zipfile

import numpy as np
import tensorflow as tf

from hccm_tf.atomic import new_folder
from hccm_tf.errors import InputError
from hccm_tf.files import read_json
from hccm_tf.formats import RUN, check_format

KEPT = 2
NUMBER = re.compile("[0-9]{8,18}")
ARRAYS, STATE = "arrays.npz", "state.json"
# Of a file that is missing, truncated or damaged; a zip file has checksums.
DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


def save_checkpoint(folder, model, state, best_weights=None):
    """Writes a checkpoint as `folder/NUMBER`, which appears when it is whole.

    The two newest are kept. In a cluster, variables are read on this process alone.

    Args:
        folder: folder of the run's checkpoints.
        model: compiled `keras.Model` with a built optimizer.
        state: dict of what else to keep, for JSON.
        best_weights: list of arrays of `model.get_weights()`, of an earlier epoch.

    Raises:
        InputError: if the disk is full. What was there stays.
    """
    folder = pathlib.Path(folder)
    numbers = [int(path.name) for path in _found(folder)]
    path = folder / f"{max(numbers, default=0) + 1:08d}"
    with new_folder(path) as temporary:
        # One array after the other, so that not all of them are in memory.
        with zipfile.ZipFile(temporary / ARRAYS, "w") as archive:
            for name, variable in _variables(model).items():
                _write_array(archive, name, _whole_value(variable))
            for place, array in enumerate(best_weights or []):
                _write_array(archive, f"best/{place}", array)
        (temporary / STATE).write_text(json.dumps({"format": RUN, **state}))
    for old in _found(folder)[:-KEPT]:
        shutil.rmtree(old)


def restore_checkpoint(folder, model, writes=True):
    """Gives a model the newest checkpoint that can be read.

    Args:
        folder: folder of the run's checkpoints.
        model: as it was saved, with all variables built.
        writes: whether this process is the one that writes, and removes damaged ones:
            they would count among those that are kept.

    Returns:
        `(state, best_weights)` of `save_checkpoint`; `None` if there is no checkpoint.

    Raises:
        InputError: if none of those that are there can be read, or they are of another
            model or package.
    """
    paths, damaged = _found(folder), []
    for path in reversed(paths):
        try:
            state = {**read_json(path / STATE)}
            with np.load(path / ARRAYS) as archive:
                arrays = {name: archive[name] for name in archive}
        except DAMAGES as error:
            warnings.warn(
                f"{path}: a damaged checkpoint ({error}); the one before it is used",
                stacklevel=2,
            )
            if writes and not isinstance(error, OSError):
                damaged.append(path)
            continue
        anew = "train_main.py in another folder"
        check_format(path / STATE, state.pop("format", None), RUN, anew)
        best = [arrays.pop(name) for name in list(arrays) if name.startswith("best/")]
        _assign(path, _variables(model), arrays)
        for other in damaged:
            shutil.rmtree(other, ignore_errors=True)
        return state, best or None
    if paths:
        raise InputError(
            f"{folder}: all checkpoints are damaged; remove them to begin again"
        )
    return None


def _found(folder):
    """Folders of whole checkpoints, oldest first."""
    folder = pathlib.Path(folder)
    found = folder.iterdir() if folder.exists() else []
    return sorted(path for path in found if NUMBER.fullmatch(path.name))


def _variables(model):
    """All variables of a training run, name → `keras.Variable`."""
    groups = {
        "model": model.variables,
        "metrics": model.metrics_variables,
        "optimizer": model.optimizer.variables,
    }
    # By place: names of layers may be numbered through a process.
    return {
        f"{group}/{place}": variable
        for group, variables in groups.items()
        for place, variable in enumerate(variables)
    }


def local_value(variable):
    """The value of a variable on this process, without asking others."""
    strategy = tf.distribute.get_strategy()
    return strategy.experimental_local_results(variable.value)[0].numpy()


def _whole_value(variable):
    """As `local_value`; of a metric, of which each replica has a part, the sum.

    Those of other processes count as this one's.
    """
    if variable.aggregation != "sum":
        return local_value(variable)
    strategy = tf.distribute.get_strategy()
    parts = strategy.experimental_local_results(variable.value)
    share = len(parts) / strategy.num_replicas_in_sync
    return sum(part.numpy() for part in parts) / share


def _write_array(archive, name, array):
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.asarray(array))


def _assign(path, variables, arrays):
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    if shapes != {name: array.shape for name, array in arrays.items()}:
        raise InputError(
            f"{path}: a checkpoint of another model or strategy; resume a run with the "
            "options that it began with"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
