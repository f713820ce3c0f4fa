"""Outputs that appear under their name only when they are whole."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import uuid

from hccm_tf.errors import InputError

DISK_IS_FULL = 1 << 20  # bytes left


@contextlib.contextmanager
def new_folder(path, resume=False):
    """Yields a temporary folder that becomes `path` when the block ends well.

    Args:
        path: the folder to make; it must not exist.
        resume: whether to go on in what an interrupted run left. Otherwise the folder
            starts empty, under a name of its own, because workers of a run that was
            killed may live on for a while; an error removes it.

    Raises:
        InputError: if `path` exists, or the disk is full.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise InputError(f"{path} exists already: remove it or name another folder")
    temporary = path.with_name(f"{path.name}.incomplete")
    if not resume:
        for left in path.parent.glob(f"{temporary.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        temporary = path.with_name(f"{temporary.name}-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
    except BaseException as error:
        full = _is_full(temporary)
        if not resume or not any(temporary.iterdir()):
            shutil.rmtree(temporary)
        _raise_if_full(path, full, error)
        raise
    temporary.rename(path)


@contextlib.contextmanager
def locked(file):
    """Keeps other processes from this block for the same file, which it makes.

    The lock goes with the process, so that a killed one leaves none. A disk that knows
    no locks, as some network disks are, is named, and the block goes on.

    Raises:
        BlockingIOError: if another process is in the block.
    """
    # Network disks lock only what is open for writing.
    with open(file, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            print(f"{file} cannot be locked ({error}): start no other process with it")
        yield


@contextlib.contextmanager
def only_writer(folder):
    """Waits until no other process is in this block for the same folder, and makes it.

    The lock goes with the process, so that a killed one leaves none.
    """
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_file(path):
    """Yields a temporary path whose file becomes `path` when the block ends well.

    Two workers may write the same file at once: one of them becomes it, whole.

    Raises:
        InputError: if the disk is full.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield temporary
    except BaseException as error:
        full = _is_full(path.parent)
        temporary.unlink(missing_ok=True)
        _raise_if_full(path, full, error)
        raise
    temporary.replace(path)


def _is_full(folder):
    return shutil.disk_usage(folder).free < DISK_IS_FULL


def _raise_if_full(path, full, error):
    if full and isinstance(error, Exception) and not isinstance(error, InputError):
        raise InputError(f"{path.parent}: the disk is full") from error
