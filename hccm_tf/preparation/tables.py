"""Reads CSV and Parquet tables in pieces; every error names file, column and row."""

import dataclasses
import io

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from hccm_tf.errors import InputError
from hccm_tf.files import open_file
from hccm_tf.preparation.table_files import is_parquet, table_files
from hccm_tf.preparation.text import to_text

# Types of CSV columns are inferred from the first block of a file.
CSV_BLOCK_BYTES = 1 << 24
PIECE_ROWS = 1_000_000
BUFFER_BYTES = 1 << 20  # of a Parquet column, at a time
BATCH_ROWS = 1 << 17


@dataclasses.dataclass(frozen=True)
class Piece:
    """What one worker reads of a table: a CSV file or some Parquet row groups.

    Args:
        file: path.
        first_row: number of the piece's first row in the file, from 0.
        row_groups: tuple of int, `None` for CSV.
    """

    file: str
    first_row: int = 0
    row_groups: tuple | None = None


def _open(file):
    try:
        return open_file(file)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from error


def open_parquet(file):
    """A `ParquetFile` that reads in buffers, as a row group may exceed memory."""
    return pq.ParquetFile(_open(file), buffer_size=BUFFER_BYTES, pre_buffer=False)


def _first_bad_line(file):
    with open_file(file) as handle:
        for number, line in enumerate(handle, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, str(error)
    return None


def _not_utf8(file, column):
    line, reason = _first_bad_line(file)
    return InputError(
        f"{file}: {column}, line {line}: not UTF-8 ({reason}); convert the file "
        "to UTF-8"
    )


def _open_csv(file, types=None, on_bad_row=None, threads=False, **conversion):
    # One thread: row numbers of bad rows are known then, and every core has a worker.
    return pa.csv.open_csv(
        _open(file),
        pa.csv.ReadOptions(use_threads=threads, block_size=CSV_BLOCK_BYTES),
        pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=on_bad_row),
        pa.csv.ConvertOptions(
            column_types=types,
            include_columns=list(types or ()),
            include_missing_columns=True,
            **conversion,
        ),
    )


def file_schema(file):
    """Arrow's schema of one file; that of CSV is inferred from its first block."""
    try:
        if is_parquet(file):
            return pq.read_schema(_open(file))
        schema = _open_csv(file, on_bad_row=lambda row: "skip").schema
        schema.names  # noqa: B018, Arrow decodes the header here
    except UnicodeDecodeError as error:
        if is_parquet(file):
            raise InputError(f"{file}: a column's name is not UTF-8") from error
        raise _not_utf8(file, "header") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: {error}") from error
    # Arrow reads CSV that is not UTF-8 as binary instead of failing.
    binary = [field.name for field in schema if pa.types.is_binary(field.type)]
    if binary and not is_parquet(file):
        raise _not_utf8(file, f"column {', '.join(binary)}")
    return schema


def _without_dictionaries(schema):
    """A schema in which an encoding of text is text: files may differ in it."""
    for place, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            schema = schema.set(place, field.with_type(field.type.value_type))
    return schema


def _with_text(schema, dates):
    """A schema in which dates of these columns are text."""
    for place, field in enumerate(schema):
        if field.name in dates and pa.types.is_temporal(field.type):
            schema = schema.set(place, field.with_type(pa.string()))
    return schema


def read_types(path, required, strings=(), dates=()):
    """Names and types of a table's columns, the same for all its files.

    Args:
        path: file or folder.
        required: names of columns that must be there.
        strings: names of columns that are text even where they look like numbers.
        dates: names of columns whose dates are text if a file is CSV: what is below
            its first block, or in another file, may be no date or have another zone,
            and Arrow would read no row then.

    Returns:
        dict name → `pyarrow.DataType`.

    Raises:
        InputError: if the path, a column or an encoding is not as it must be.
    """
    schemas, files = [], table_files(path)
    if all(map(is_parquet, files)):
        dates = ()
    for file in files:
        schema = _without_dictionaries(file_schema(file))
        twice = sorted({n for n in schema.names if schema.names.count(n) > 1})
        if twice:
            raise InputError(f"{file}: columns named twice: {', '.join(twice)}")
        missing = [name for name in required if name not in schema.names]
        if missing:
            raise InputError(
                f"{file}: no column {', '.join(missing)}. Received columns: "
                f"{', '.join(schema.names)}"
            )
        schemas.append(_with_text(schema, dates))
    try:
        # Permissive, because pandas writes Parquet with another type of string than
        # CSV is read as; it still refuses text beside numbers.
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{path}: its files disagree on a column: {error}") from error
    types = {field.name: field.type for field in schema}
    for name, dtype in types.items():
        # What is empty at first may hold text further down.
        if name in strings or (pa.types.is_null(dtype) and name not in required):
            types[name] = pa.string()
    return types


def _row_group_pieces(file):
    metadata = pq.read_metadata(_open(file))
    sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    piece_of_group = starts[:-1] // PIECE_ROWS
    for piece in np.unique(piece_of_group):
        groups = np.flatnonzero(piece_of_group == piece).tolist()
        yield Piece(file, int(starts[groups[0]]), tuple(groups))


def pieces(path):
    """Cuts a table into list of `Piece`."""
    found = []
    for file in table_files(path):
        found += _row_group_pieces(file) if is_parquet(file) else [Piece(file)]
    return found


def estimate_rows(path):
    """Number of a table's rows: exact for Parquet, from the first megabyte for CSV."""
    return sum(
        pq.read_metadata(_open(file)).num_rows
        if is_parquet(file)
        else _estimate_csv_rows(file)
        for file in table_files(path)
    )


def _estimate_csv_rows(file):
    with open_file(file) as handle:
        sample = handle.read(1 << 20)
        size = handle.seek(0, io.SEEK_END)
    return sample.count(b"\n") * size // max(len(sample), 1)


def read_text(file, names):
    """Yields record batches of some columns of a CSV file as text, null where empty.

    Rows with too few or too many fields are left out.
    """
    types = dict.fromkeys(names, pa.string())
    yield from _open_csv(
        file, types, lambda row: "skip", threads=True, strings_can_be_null=True
    )


def read_column(file, name):
    """Yields a column of a Parquet file in Arrow arrays."""
    try:
        for batch in open_parquet(file).iter_batches(BATCH_ROWS, columns=[name]):
            yield batch[name]
    except OSError as error:
        raise InputError(f"{file}: column {name}: {error}") from error


def _cast(column, dtype):
    return to_text(column) if pa.types.is_string(dtype) else column.cast(dtype)


def read_batches(piece, types, on_bad_row=None):
    """Reads columns of a piece in record batches.

    Args:
        piece: `Piece`.
        types: name → Arrow type of the columns to read: of `read_types`, or text.
        on_bad_row: called with Arrow's `InvalidRow` for a CSV row with too few or too
            many fields; returns `"skip"` or `"error"`. `None` is an error.

    Yields:
        `(first_row, pyarrow.RecordBatch)`: the number of the batch's first row in the
        file, from 0 (bad rows are not counted), and the columns, in their types; one
        that the file does not have is null.

    Raises:
        InputError: if a row or value cannot be read.
    """
    row = piece.first_row
    schema = pa.schema(types.items())
    try:
        if piece.row_groups is None:
            batches = _open_csv(piece.file, types, on_bad_row)
        else:
            file = open_parquet(piece.file)
            names = [name for name in types if name in file.schema_arrow.names]
            batches = file.iter_batches(BATCH_ROWS, list(piece.row_groups), names)
        for batch in batches:
            _check_text(piece.file, row, batch)
            columns = [
                _cast(batch[name], dtype)
                if name in batch.schema.names
                else pa.nulls(len(batch), dtype)
                for name, dtype in types.items()
            ]
            yield row, pa.record_batch(columns, schema=schema)
            row += len(batch)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        advice = "mend the row, or write the table as Parquet, which has types"
        advice = "write the file again" if is_parquet(piece.file) else advice
        raise InputError(f"{piece.file}: after row {row}: {error}; {advice}") from error


def _check_text(file, row, batch):
    """Arrow takes the text of a Parquet file as it is."""
    for name in batch.schema.names:
        try:
            batch[name].validate(full=True)
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{file}: column {name}, after row {row}: {error}; write the file again"
            ) from error


def read_table(path, required, strings=()):
    """Reads columns of a whole table, see `read_types`, as a `pyarrow.Table`."""
    types = read_types(path, required, strings)
    return read_columns(path, {name: types[name] for name in required})


def read_columns(path, types):
    """Reads columns of a whole table, name → Arrow type, as a `pyarrow.Table`."""
    batches = [
        batch for piece in pieces(path) for _, batch in read_batches(piece, types)
    ]
    return pa.Table.from_batches(batches, pa.schema(types.items()))
