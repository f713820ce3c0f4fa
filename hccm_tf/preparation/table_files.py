"""The files of a table, on a disk or in an object store."""

import pathlib

from hccm_tf.errors import InputError
from hccm_tf.files import is_remote, join
from hccm_tf.object_stores import in_store, kind_of, list_folder


def table_files(path):
    """The `.csv` and `.parquet` files of a path, see `files_of`."""
    return files_of(path, (".csv", ".parquet"))


def is_parquet(file):
    """Whether a file of a table is Parquet; otherwise it is CSV."""
    return file.endswith(".parquet")


def files_of(path, suffixes):
    """The files of a path: itself, or those of a folder.

    Args:
        path: str or `pathlib.Path`.
        suffixes: how their names end.

    Returns:
        list of str, sorted.

    Raises:
        InputError: if there is none, or one of another kind.
    """
    if is_remote(path) and not in_store(path):
        return [str(path)]
    try:
        files = _in_store(str(path)) if in_store(path) else _on_disk(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not files:
        raise InputError(
            f"{path}: no such file, or a folder without {' or '.join(suffixes)}"
        )
    for file, is_folder in files.items():
        if is_folder or not file.endswith(suffixes):
            raise InputError(
                f"{file}: neither a {' nor a '.join(suffixes)} file, and nothing else "
                "is read; unpack it, convert it, or put it elsewhere"
            )
    return sorted(files)


def _on_disk(path):
    """A file, or those of a folder; dict from path to whether it is a folder itself."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return {str(path): False} if path.exists() else {}
    return {str(file): file.is_dir() for file in path.iterdir() if _counts(file.name)}


def _in_store(address):
    if (kind := kind_of(address)) != "folder":
        return {address: False} if kind == "file" else {}
    return {
        join(address, name): kind == "folder"
        for name, (kind, _, _) in list_folder(address).items()
        if _counts(name)
    }


def _counts(name):
    # Spark and others leave files such as _SUCCESS.
    return name[0] not in "._"
