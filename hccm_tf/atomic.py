"""Outputs that appear under their name only when they are whole."""

import concurrent.futures
import contextlib
import errno
import fcntl
import functools
import os
import pathlib
import re
import shutil
import tempfile
import uuid

from hccm_tf.errors import InputError

DISK_IS_FULL = 1 << 20  # bytes left
# What a disk answers that has no room, and one that cannot flush.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP)
# A disk writes the small files of many threads together.
FLUSHING_THREADS = 16


@contextlib.contextmanager
def new_folder(path, resume=False):
    """Yields a temporary folder that becomes `path` when the block ends well.

    Args:
        path: the folder to make; it must not exist.
        resume: whether to go on in what an interrupted run left. Otherwise the folder
            starts empty, under a name of its own, because workers of a run that was
            killed may live on for a while; an error removes it.

    Raises:
        InputError: if `path` exists or cannot be made, another process makes it, or
            the disk is full.
    """
    path = pathlib.Path(path)
    _check_is_new(path)
    check_can_make(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_maker(path):
        # Now that no other process can be about to make it.
        _check_is_new(path)
        temporary = path.with_name(f"{path.name}.incomplete")
        if not resume:
            for left in _left_over(temporary):
                shutil.rmtree(left, ignore_errors=True)
            temporary = path.with_name(f"{temporary.name}-{uuid.uuid4().hex[:8]}")
        temporary.mkdir(exist_ok=True)
        try:
            yield temporary
            publish(temporary, path)
        except BaseException as error:
            full = _is_full(path.parent, error)
            is_empty = temporary.exists() and not any(temporary.iterdir())
            if not resume or is_empty:
                shutil.rmtree(temporary, ignore_errors=True)
            _raise_if_full(path, full, error)
            raise


def _check_is_new(path):
    if os.path.lexists(path):
        raise InputError(f"{path} exists already: remove it or name another folder")


def _left_over(temporary):
    """Folders that killed runs left; names that only look alike are the user's."""
    name = re.compile(re.escape(temporary.name) + "-[0-9a-f]{8}")
    return [path for path in temporary.parent.iterdir() if name.fullmatch(path.name)]


def check_can_make(path):
    """Raises an `InputError` if nothing can be written under this name.

    It tries, so that it is found out before the work and not after it.
    """
    check_is_local(path)
    path = pathlib.Path(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            # A name that is too long, for one, or a file where a folder should be.
            os.lstat(path.with_name(f"{path.name}.incomplete-00000000.lock"))
        # A file that is there becomes another one of its folder.
        places = path.parents if path.is_file() else (path, *path.parents)
        above = next(place for place in places if os.path.lexists(place))
        with tempfile.TemporaryDirectory(dir=above):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        _raise_if_full(path, _has_no_room(error), error)
        raise InputError(
            f"{path}: cannot be written ({reason}); name another place"
        ) from error


def check_is_local(path):
    """Raises an `InputError` for an address, such as `s3://bucket/folder`."""
    # A `pathlib.Path` has one slash where there were two.
    if address := re.match("([a-z][a-z0-9]*):/+(.*)", str(path)):
        raise InputError(
            f"{address[1]}://{address[2]}: nothing is written there; write to a disk, "
            "and copy what is written"
        )


@contextlib.contextmanager
def _only_maker(path):
    """Keeps other processes from this block for the same output.

    Raises:
        InputError: if another process is in it.
    """
    lock = path.with_name(f"{path.name}.incomplete.lock")
    while True:
        with contextlib.ExitStack() as stack:
            try:
                handle = stack.enter_context(locked(lock))
            except BlockingIOError as error:
                raise InputError(
                    f"{path}: another process writes it; wait for it or end it, or "
                    "name another place"
                ) from error
            # The process that had it may have removed it in the meantime.
            if _is_file(handle, lock):
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return


def _is_file(handle, path):
    try:
        return os.path.samestat(os.fstat(handle.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(file):
    """Keeps other processes from this block for the same file, which it makes.

    The lock goes with the process, so that a killed one leaves none. A disk that knows
    no locks, as some network disks are, is named, and the block goes on.

    Yields:
        The open file.

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
            _say_unlocked(pathlib.Path(file).parent, str(error))
        yield handle


@functools.cache
def _say_unlocked(folder, reason):
    print(f"{folder} has no locks ({reason}): start no other process with it")


@contextlib.contextmanager
def only_writer(folder):
    """Waits until no other process is in this block for the same folder, and makes it.

    The lock goes with the process, so that a killed one leaves none. Network disks that
    know no locks are named, as by `locked`.
    """
    check_is_local(folder)
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            _say_unlocked(pathlib.Path(folder), str(error))
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_file(path, lasting=True):
    """Yields a temporary path whose file becomes `path` when the block ends well.

    Two workers may write the same file at once: one of them becomes it, whole.

    Args:
        path: the file to write.
        lasting: whether it is to outlast a loss of power. Files between the steps of a
            tool are not, nor those of a `new_folder`, which sees to it itself.

    Raises:
        InputError: if the disk is full.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield temporary
        if lasting:
            publish(temporary, path)
        else:
            temporary.replace(path)
    except BaseException as error:
        full = _is_full(path.parent, error)
        temporary.unlink(missing_ok=True)
        _raise_if_full(path, full, error)
        raise


def remove_unfinished(path):
    """Removes what killed processes left of a `new_file`, where none is at work now."""
    name = re.compile(re.escape(path.name) + r"\.[0-9a-f]{8}\.(part|keras)")
    for left in path.parent.iterdir():
        if name.fullmatch(left.name):
            left.unlink()


def write_text(path, text):
    """Writes a small file, whole or not at all; `InputError` if the disk is full."""
    with new_file(path) as temporary:
        temporary.write_text(text, "utf-8")


def publish(temporary, path):
    """Gives a file or folder its name, when all of it is on the disk.

    Otherwise a loss of power could leave the name without the content.
    """
    flush(temporary)
    temporary.replace(path)
    _flush_one(path.parent)


def flush(path):
    """Waits until a file, or a folder with all that is in it, is on the disk."""
    paths = [path]
    for folder, folders, files in os.walk(path):
        paths += [pathlib.Path(folder, name) for name in (*folders, *files)]
    with concurrent.futures.ThreadPoolExecutor(FLUSHING_THREADS) as threads:
        # Those inside first.
        for _ in threads.map(_flush_one, reversed(paths)):
            pass


def _flush_one(path):
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # A disk that cannot, as some network disks are.
        if error.errno not in CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)


def _is_full(folder, error):
    few = shutil.disk_usage(folder).free < DISK_IS_FULL
    return few or _has_no_room(error)


def _has_no_room(error):
    return getattr(error, "errno", None) in NO_ROOM


def _raise_if_full(path, full, error):
    if full and isinstance(error, Exception) and not isinstance(error, InputError):
        raise InputError(f"{path.parent}: the disk is full") from error
