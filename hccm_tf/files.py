"""Reads files of local and remote paths: `s3://`, `gs://`, `hdfs://`, `http://`.

Those of object stores are streams, see `hccm_tf.object_stores`. All else, and all
TFRecords, TensorFlow reads: local paths and `gs://` by itself, `http://`, `hdfs://` and
others with tensorflow-io, the extra `[io]`, which pins the last TensorFlow that it
loads on. Its reads of `s3://` give right results and then abort the process, so that
TFRecords of `s3://` are copied instead, see `hccm_tf.data.local_copy`.
"""

import concurrent.futures
import functools
import io
import json
import os
import zlib

import pyarrow.parquet as pq
from etils import epy

from hccm_tf.errors import InputError
from hccm_tf.object_stores import in_store, kind_of, open_object

with epy.lazy_imports():
    import tensorflow as tf


def is_remote(path):
    """Whether a path begins with a scheme such as `s3://`."""
    return "://" in str(path)


def require_scheme(path):
    """Makes TensorFlow read a path's scheme, by importing tensorflow-io if it must.

    Raises:
        InputError: if the scheme needs the extra, and it is not there.
    """
    if not is_remote(path):
        return
    scheme = str(path).partition("://")[0]
    if scheme == "s3":
        raise InputError(
            f"{path}: TensorFlow reads no TFRecords of s3://; copy the folder to a "
            "disk, as train_main.py does with --cache_dir"
        )
    if scheme in tf.io.gfile.get_registered_schemes():
        return
    try:
        import tensorflow_io  # noqa: F401, registers its file systems
    except ImportError as error:
        raise InputError(
            f"{path}: TensorFlow {tf.__version__} does not read {scheme}:// paths; for "
            "http:// and hdfs:// install the extra with pip install 'hccm_tf[io]', "
            "which brings tensorflow-io and TensorFlow 2.17, or copy the file to a disk"
        ) from error
    if scheme not in tf.io.gfile.get_registered_schemes():
        raise InputError(f"{path}: no file system reads {scheme}:// paths")


def open_file(path, limit=None):
    """Opens a file for reading; one that only TensorFlow reads is read into memory.

    Args:
        path: str or `pathlib.Path`.
        limit: number of bytes that a remote file may have, `None` for any number.

    Returns:
        A binary file object.

    Raises:
        InputError: if the path's scheme needs the extra `[io]`, or is unknown.
        OSError: if the file cannot be read, or has more bytes.
    """
    if not is_remote(path):
        return open(path, "rb")
    if in_store(path):
        return open_object(path, limit)
    require_scheme(path)
    try:
        with tf.io.gfile.GFile(str(path), "rb") as handle:
            content = handle.read(-1 if limit is None else limit + 1)
    except tf.errors.OpError as error:
        raise OSError(f"{path}: {error.message}") from error
    if limit is not None and len(content) > limit:
        raise OSError(f"{path}: more than {limit} bytes")
    return io.BytesIO(content)


def crc32(path):
    """CRC-32 of a file's content, int; `OSError` if it cannot be read."""
    value, opened = 0, open_file
    if is_remote(path) and not in_store(path):
        require_scheme(path)
        # `open_file` would hold all of it.
        opened = functools.partial(tf.io.gfile.GFile, mode="rb")
    try:
        with opened(str(path)) as handle:
            while block := handle.read(2**20):
                value = zlib.crc32(block, value)
    except tf.errors.OpError as error:
        raise OSError(f"{path}: {error.message}") from error
    return value


def crc32_of_all(paths):
    """`crc32` of several files, several at a time; list of int."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(crc32, paths))


def read_json(path):
    """Content of a JSON file; `OSError` or `ValueError` if it cannot be read."""
    with open_file(path) as handle:
        try:
            return json.load(handle)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def read_parquet(path, columns=None):
    """Reads a small Parquet file as a `pyarrow.Table`.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged.
    """
    with open_file(path) as handle:
        return pq.read_table(handle, columns=columns)


def join(folder, *names):
    """The path of a file in a local or remote folder, str."""
    return os.path.join(str(folder), *names)


def check_folder(argument, path, what=""):
    """Raises an `InputError` unless there is a folder, on a disk or in an object store.

    Of other schemes, of which some have no folders, it asks nothing.

    Args:
        argument: what the path is called, str.
        path: str or `pathlib.Path`.
        what: what the error ends with, str.
    """
    if is_remote(path) and not in_store(path):
        return
    found, reason = False, "no such folder"
    try:
        found = kind_of(path) == "folder" if in_store(path) else os.path.isdir(path)
    except OSError as error:
        reason = error.strerror
    if not found:
        raise InputError(f"{argument}={path}: {reason}{what}")


def resolve(path):
    """The path by which other processes know a file too, str: absolute, or remote."""
    return str(path) if is_remote(path) else os.path.realpath(path)
