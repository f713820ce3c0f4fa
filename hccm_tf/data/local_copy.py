"""Copies DATA and MAPS of an object store to a disk, where TensorFlow maps them."""

import concurrent.futures
import fnmatch
import hashlib
import json
import pathlib
import posixpath
import shutil

from hccm_tf.atomic import check_can_make, new_file, new_folder, only_writer
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.files import join
from hccm_tf.object_stores import download, in_store, list_folder
from hccm_tf.progress import advance, progress

THREADS = 16  # files at the same time


def local_copy(path, cache_dir, needed):
    """The path of a folder on this machine's disk, to which it is copied once.

    The copy's name ends with a hash of the address and of the names, sizes and times of
    modification of its files. A copy with that name is whole, and is taken as it is;
    what has changed in the store becomes a copy beside it, so that who still reads the
    old one reads on. Nothing removes old ones. An interrupted copy goes on with the
    files that are not there.

    Args:
        path: str, of a folder; one that is on a disk already is returned as it is.
        cache_dir: folder of the copies; `None` if none is given.
        needed: patterns of the names of the files to copy, as of `fnmatch`; each
            matches names in as many folders as it names itself.

    Returns:
        str.

    Raises:
        InputError: if the folder cannot be read, has no such file, or changes
            meanwhile; or if `cache_dir` is not given, or cannot be written.
    """
    if not in_store(path):
        return path
    if cache_dir is None:
        raise InputError(f"cache_dir: the folder for a copy of {path} is missing")
    path = path.rstrip("/")
    files = _files(path, needed)
    told = json.dumps([path, files])
    version = hashlib.sha256(told.encode()).hexdigest()[:16]
    folder = pathlib.Path(cache_dir, f"{posixpath.basename(path)}-{version}")
    with errors_begin_with("cache_dir="):
        check_can_make(folder)
    # Processes of a cluster may share the folder.
    with only_writer(cache_dir):
        if not folder.exists():
            with new_folder(folder, resume=True) as temporary:
                _copy(path, files, temporary)
                if _files(path, needed) != files:
                    shutil.rmtree(temporary)
                    raise InputError(
                        f"{path}: it changed while it was copied; begin again"
                    )
            print(f"copied {path} -> {folder}")
    return str(folder)


def _files(path, needed):
    """The files to copy: dict from name to `(size, time)`, by the alphabet."""
    try:
        found = list_folder(path, recursive=True)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    files = {
        name: (size, time)
        for name, (kind, size, time) in sorted(found.items())
        if kind == "file" and is_needed(name, needed)
    }
    if not files:
        raise InputError(f"{path}: it has none of {', '.join(needed)}")
    return files


def is_needed(name, needed):
    """Whether one of some patterns, see `local_copy`, is that of a file's name."""
    return any(
        fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")
        for pattern in needed
    )


def _copy(path, files, folder):
    # What was being copied when an earlier process was killed.
    for part in folder.rglob("*.part"):
        part.unlink()

    def copy(name):
        target, size = folder / name, files[name][0]
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            with new_file(target, lasting=False) as temporary:
                download(join(path, name), temporary)
        advance(size)

    total = sum(size for size, _ in files.values())
    with progress("copying", total, "byte"):
        with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
            try:
                for _ in threads.map(copy, files):
                    pass
            except OSError as error:
                raise InputError(f"{path}: {error.strerror or error}") from error
