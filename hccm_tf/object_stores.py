"""Addresses in object stores, and how they are opened: by pyarrow, as streams.

`s3://bucket/key`, `gs://bucket/key` and `hdfs://host:port/path`. Who asks, and where,
says the environment, as it does to the stores' own tools: of s3, `AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL` and others, or the files below `~/.aws`.
"""

import contextlib
import errno
import functools
import io

import pyarrow as pa
import pyarrow.fs

from hccm_tf.errors import InputError, first_line

# By what the environment says it.
SCHEMES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hdfs": "HADOOP_HOME, CLASSPATH",
}
BUFFER_BYTES = 1 << 20
# pyarrow would read them as a password, or as options of how to connect.
NOT_IN_BUCKETS = "?@#"
KINDS = {pa.fs.FileType.File: "file", pa.fs.FileType.Directory: "folder"}
# AWS says at length what it was doing.
ERROR_LENGTH = 300


def in_store(path):
    """Whether a path, str or `pathlib.Path`, is an address in an object store."""
    scheme, separator, _ = str(path).partition("://")
    return bool(separator) and scheme in SCHEMES


def _locate(address):
    """`(pyarrow.fs.FileSystem, path)` of an address.

    Raises:
        InputError: if no bucket can have such a name.
    """
    scheme, _, rest = str(address).partition("://")
    bucket, _, key = rest.partition("/")
    # Of HDFS, the configuration may name the host.
    if set(bucket) & set(NOT_IN_BUCKETS) or not (bucket or scheme == "hdfs"):
        # Without what may be a password.
        raise InputError(
            f"{scheme}://: an address begins with a bucket, whose name has none of "
            f"{NOT_IN_BUCKETS}; keys and endpoints stand in the environment"
        )
    # Of the bucket alone: in a key, these signs are letters as others are.
    store, root = _file_system(f"{scheme}://{bucket}")
    return store, f"{root.rstrip('/')}/{key}".rstrip("/")


@functools.cache
def _file_system(bucket):
    return pa.fs.FileSystem.from_uri(bucket)


@contextlib.contextmanager
def _system_errors(address):
    """Turns pyarrow's errors into those of `open`, of one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file", str(address)) from error
    except (OSError, pa.ArrowException) as error:
        text = first_line(error, ERROR_LENGTH).rstrip(".")
        told_by = SCHEMES[str(address).partition("://")[0]]
        text += f"; the environment says who asks, and where: {told_by}"
        raise OSError(errno.EIO, text, str(address)) from error


def open_object(address, limit=None):
    """Opens a file for reading.

    Args:
        address: str or `pathlib.Path`.
        limit: number of bytes that it may have, `None` for any number.

    Returns:
        A binary file object, which reads what it is asked for, at any place.

    Raises:
        InputError: if no bucket can have such a name.
        OSError: if it cannot be opened, or has more bytes.
    """
    with _system_errors(address):
        store, path = _locate(address)
        file = store.open_input_file(path)
        size = file.size()
    if limit is not None and size > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes", str(address))
    # pyarrow's own file has no lines.
    return io.BufferedReader(file, BUFFER_BYTES)


def kind_of(address):
    """`"file"` or `"folder"`, `None` if there is nothing.

    Raises:
        InputError: if no bucket can have such a name.
        OSError: if the store cannot be asked, or has no such bucket.
    """
    with _system_errors(address):
        store, path = _locate(address)
        found = store.get_file_info(path).type
    bucket = path.partition("/")[0]
    if found is pa.fs.FileType.NotFound and not _is_there(store, bucket):
        raise FileNotFoundError(errno.ENOENT, f"no such bucket, {bucket}", str(address))
    return KINDS.get(found)


def _is_there(store, bucket):
    # Who may read a file may yet not ask for its bucket; and HDFS has none.
    with contextlib.suppress(OSError):
        found = store.get_file_info(bucket).type if bucket else None
        return found is not pa.fs.FileType.NotFound
    return True


def list_folder(address, recursive=False):
    """What is in a folder, by names relative to it.

    Args:
        address: of the folder.
        recursive: whether to list what is in its folders, too.

    Returns:
        dict from name to `(kind, size, time)`, see `kind_of`; size in bytes and time of
        modification in nanoseconds, int, are `None` of a folder.

    Raises:
        InputError: if no bucket can have such a name.
        OSError: if there is no such folder, or the store cannot be asked.
    """
    with _system_errors(address):
        store, path = _locate(address)
        found = store.get_file_info(pa.fs.FileSelector(path, recursive=recursive))
    return {
        info.path.removeprefix(path).lstrip("/"): (
            KINDS.get(info.type),
            info.size,
            info.mtime_ns,
        )
        for info in found
    }


def download(address, file):
    """Copies a file to a path of this machine's disk; `OSError` if it cannot."""
    with _system_errors(address):
        store, path = _locate(address)
        here = pa.fs.LocalFileSystem()
        pa.fs.copy_files(path, str(file), store, here, chunk_size=BUFFER_BYTES)
