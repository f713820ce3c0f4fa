"""Reads image vectors and maps that others have made, from Parquet and NumPy files.

A file is read in batches, so that it may be larger than memory.
"""

import dataclasses
import math
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hccm_tf.errors import InputError, errors_begin_with, first_line
from hccm_tf.files import open_file
from hccm_tf.preparation.table_files import files_of, is_parquet
from hccm_tf.preparation.tables import open_parquet
from hccm_tf.preparation.text import to_text

SUFFIXES = (".npz", ".parquet")
IDS, ARRAYS = "image", ("vector", "map")  # columns of Parquet
NPZ_IDS, NPZ_MAPS = "ids", "maps"
BATCH_BYTES = 1 << 25
BATCH_ROWS = 4_096
LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# An empty file is an EOFError, one array in the place of several a TypeError.
UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, TypeError),
    *(zlib.error, zipfile.BadZipFile),
)


@dataclasses.dataclass(frozen=True)
class VectorFile:
    """Images' names and arrays in one file.

    Args:
        path: of a `.parquet` file with the columns `image` and `vector` or `map`, lists
            or lists of lists of numbers; or of a `.npz` file with `ids` and `maps`.
    """

    path: str

    @property
    def _is_parquet(self):
        return is_parquet(self.path)

    def names(self):
        """Names of the images, Arrow array of str, null where there is none."""
        try:
            return self._parquet_names() if self._is_parquet else self._npz_names()
        except UNREADABLE as error:
            raise self._unreadable(error) from error

    def batches(self):
        """Yields arrays `[N, ...]` of numbers, in the order of the names.

        Raises:
            InputError: if the file, or a row of it, is not as it must be.
        """
        try:
            yield from self._parquet_batches() if self._is_parquet else self._npz()
        except UNREADABLE as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error):
        if isinstance(error, InputError):
            return error
        needed = f"columns {IDS} and {' or '.join(ARRAYS)}"
        if not self._is_parquet:
            needed = f"arrays {NPZ_IDS} and {NPZ_MAPS}"
        return InputError(f"{self.path}: not read as {needed} ({first_line(error)})")

    def _parquet_names(self):
        with open_parquet(self.path) as file:
            names = file.schema_arrow.names
            if IDS not in names or len(set(names) & set(ARRAYS)) != 1:
                raise InputError(
                    f"{self.path}: it needs a column {IDS} and one of "
                    f"{', '.join(ARRAYS)}. Received columns: {', '.join(names)}"
                )
            column = file.read([IDS])[IDS].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return to_text(column)

    def _parquet_batches(self):
        with open_parquet(self.path) as file:
            (name,) = set(file.schema_arrow.names) & set(ARRAYS)
            groups = [
                file.metadata.row_group(number)
                for number in range(file.metadata.num_row_groups)
            ]
            size = sum(group.total_byte_size for group in groups)
            rows = _batch_rows(size / max(1, file.metadata.num_rows))
            start = 0
            for batch in file.iter_batches(rows, columns=[name]):
                yield self._stack(name, batch[name], start)
                start += len(batch)

    def _stack(self, name, column, start):
        """The array `[N, ...]` of a column of lists, which are equally long."""
        if isinstance(column, pa.FixedShapeTensorArray):
            return column.to_numpy_ndarray()
        shape = [len(column)]
        while any(is_list(column.type) for is_list in LISTS):
            lengths = pc.list_value_length(column).fill_null(-1).to_numpy()
            bad = (lengths != lengths[0]) | (lengths < 1)
            if bad.any():
                place = int(np.argmax(bad))
                found = lengths[place] if lengths[place] >= 0 else "null"
                raise InputError(
                    f"{self.path}: column {name}, row "
                    f"{start + place // math.prod(shape[1:]) + 1}: a list of another "
                    f"length than the first one's, {lengths[0]}. Received: {found}"
                )
            shape.append(int(lengths[0]))
            column = column.flatten()
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise InputError(
                f"{self.path}: column {name}: no lists of numbers. Received: "
                f"{column.type}"
            )
        if column.null_count:
            place = column.is_null().to_numpy(zero_copy_only=False).argmax()
            raise InputError(
                f"{self.path}: column {name}, row "
                f"{start + place // math.prod(shape[1:]) + 1}: a value is missing"
            )
        return column.to_numpy().reshape(shape)

    def _npz_names(self):
        # Without pickles, which are programs.
        with (
            open_file(self.path) as handle,
            np.load(handle, allow_pickle=False) as file,
        ):
            names = file[NPZ_IDS]
        if names.ndim != 1 or names.dtype.kind not in "iuU":
            raise InputError(
                f"{self.path}: {NPZ_IDS}: text or integers [N], such as "
                f"np.array(ids, str). Received: {names.dtype} {names.shape}"
            )
        return pa.array(names.astype(str).tolist(), pa.string())

    def _npz(self):
        with (
            open_file(self.path) as file,
            zipfile.ZipFile(file) as archive,
            archive.open(f"{NPZ_MAPS}.npy") as handle,
        ):
            version = np.lib.format.read_magic(handle)
            shape, is_fortran, dtype = HEADERS[version](handle)
            if dtype.kind not in "iuf" or is_fortran or not shape:
                raise InputError(
                    f"{self.path}: {NPZ_MAPS}: numbers [N, ...] in C order. Received: "
                    f"{dtype} {shape}{', in Fortran order' if is_fortran else ''}"
                )
            size = dtype.itemsize * math.prod(shape[1:])
            rows = _batch_rows(size)
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                content = handle.read(count * size)
                yield np.frombuffer(content, dtype).reshape(count, *shape[1:])


def _batch_rows(row_bytes):
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(1, row_bytes))))


def vector_files(path):
    """The files of a path, list of `VectorFile`; raises as `files_of`."""
    with errors_begin_with("input: "):
        return [VectorFile(file) for file in files_of(path, SUFFIXES)]
