"""Reads CSV and Parquet tables; every error names file, column and row."""

import pathlib

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from hccm_tf.errors import InputError


def _first_bad_line(path):
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, str(error)
    return None


def _read_csv(path):
    try:
        table = pa.csv.read_csv(path)
        # Arrow reads a column that is not UTF-8 as binary instead of failing, and
        # fails on a header when it is looked at.
        types = zip(table.column_names, table.schema.types, strict=True)
        binary = [name for name, dtype in types if pa.types.is_binary(dtype)]
        column = f"column {', '.join(binary)}"
    except UnicodeDecodeError:
        binary, column = True, "header"
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: {error}") from error
    if binary:
        line, reason = _first_bad_line(path)
        raise InputError(
            f"{path}: {column}, line {line}: not UTF-8 ({reason}); convert the file "
            "to UTF-8"
        )
    return table


def _read_file(path):
    if path.suffix == ".parquet":
        try:
            return pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: {error}") from error
    return _read_csv(path)


def read_table(path, required):
    """Reads a `.csv` or `.parquet` file, or all such files of a folder.

    Args:
        path: file or folder.
        required: names of columns that must be there.

    Returns:
        `pandas.DataFrame`.

    Raises:
        InputError: if the path, a column or an encoding is not as it must be.
    """
    path = pathlib.Path(path)
    files = [path]
    if path.is_dir():
        files = sorted([*path.glob("*.csv"), *path.glob("*.parquet")])
    if not files or not files[0].is_file():
        raise InputError(f"{path}: no such file, or a folder without .csv or .parquet")
    tables = [_read_file(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        missing = [name for name in required if name not in table.column_names]
        if missing:
            raise InputError(
                f"{file}: no column {', '.join(missing)}. Received columns: "
                f"{', '.join(table.column_names)}"
            )
    try:
        # Permissive, because pandas writes Parquet with another type of string than
        # CSV is read as; it still refuses text beside numbers.
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{path}: its files disagree on a column: {error}") from error
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
