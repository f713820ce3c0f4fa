import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hccm_tf.errors import InputError, report_input_errors
from hccm_tf.preparation import tables
from hccm_tf.preparation.tables import pieces, read_batches, read_table, read_types


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", r"t.csv"),
        (b"item_id,picture\n1,a\n", "t.csv: no column image.*item_id, picture"),
        (b"item_id,image\n1,a\n2,\xe4\n", "t.csv: column image, line 3: not UTF-8"),
        (b"item_id,im\xe4ge,image\n1,a,b\n", "t.csv"),
        (b"item_id,image\n1,a,extra\n", "t.csv"),
    ],
)
def test_errors_of_a_table(tmp_path, content, message):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(path, ["item_id", "image"])


def test_a_folder_of_tables(tmp_path):
    pd.DataFrame({"a": [1, None], "b": ["x", ""]}).astype({"a": "Int64"}).to_csv(
        tmp_path / "0.csv", index=False
    )
    pd.DataFrame({"a": [2**60 + 1], "b": ["ü"]}).to_parquet(tmp_path / "1.parquet")
    table = read_table(tmp_path, ["a", "b"]).to_pandas(integer_object_nulls=True)
    assert table.a.dropna().tolist() == [1, 2**60 + 1]
    assert table.b.tolist() == ["x", "", "ü"]
    pd.DataFrame({"a": ["word"], "b": ["y"]}).to_csv(tmp_path / "2.csv", index=False)
    with pytest.raises(InputError, match="disagree"):
        read_table(tmp_path, ["a"])


def test_text_that_looks_like_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("item_id,image\n1,007\n2,8\n")
    table = read_table(tmp_path / "t.csv", ["image"], strings=["image"])
    assert table["image"].to_pylist() == ["007", "8"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_pieces_and_batches_lose_nothing(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(tables, "PIECE_ROWS", 50)
    monkeypatch.setattr(tables, "BATCH_ROWS", 8)
    monkeypatch.setattr(tables, "CSV_BLOCK_BYTES", 100)
    frame = pd.DataFrame({"a": np.arange(1_000), "b": [f"w{n}" for n in range(1_000)]})
    for number, rows in enumerate((frame[:230], frame[230:])):
        path = tmp_path / f"{number}.{suffix}"
        if suffix == "csv":
            rows.to_csv(path, index=False)
        else:
            pq.write_table(pa.Table.from_pandas(rows), path, row_group_size=20)
    found, batches = pieces(tmp_path), []
    assert len(found) == (2 if suffix == "csv" else 5 + 16)
    for piece in found:
        offset = 230 * piece.file.endswith(f"1.{suffix}")
        for first_row, batch in read_batches(piece, read_types(tmp_path, ["a"])):
            assert batch["a"][0].as_py() == offset + first_row
            batches.append(batch.to_pandas())
    assert len(batches) > len(found)
    pd.testing.assert_frame_equal(pd.concat(batches, ignore_index=True), frame)
    estimate = tables.estimate_rows(tmp_path)
    assert estimate == 1_000 if suffix == "parquet" else 900 < estimate < 1_100


def test_a_type_that_changes_within_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CSV_BLOCK_BYTES", 100)
    path = tmp_path / "t.csv"
    path.write_text("a\n" + "1\n" * 500 + "word\n")
    with pytest.raises(InputError, match="t.csv: after row.*word.*Parquet"):
        read_table(path, ["a"])


def test_a_row_that_cannot_be_decoded_is_one_line(tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_bytes(b"item_id,image\n1,a\n2,\xe4\x0b,c\n")
    with pytest.raises(SystemExit), report_input_errors():
        read_table(path, ["item_id", "image"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: CSV parse error: Row #3")


def test_a_page_of_parquet_that_is_damaged(tmp_path):
    path = tmp_path / "t.parquet"
    table = pa.table({"a": pa.array(["7"] * 1000)})
    pq.write_table(table, path, use_dictionary=False, compression="none")
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)
    path.write_bytes(content)
    with pytest.raises(InputError, match="t.parquet: column a: "):
        list(tables.read_column(path, "a"))


class _Counting(io.FileIO):
    """A file that knows the most bytes that were asked of it at once."""

    most = 0

    def read(self, size=-1):
        content = super().read(size)
        self.most = max(self.most, len(content))
        return content


def test_a_large_row_group_is_read_in_buffers(tmp_path, monkeypatch):
    path, rows = tmp_path / "t.parquet", 400_000
    clicks = np.random.default_rng(0).integers(0, 2**62, 5 * rows)
    lists = pa.LargeListArray.from_arrays(np.arange(0, 5 * rows + 1, 5), clicks)
    table = pa.table({"a": clicks[:rows], "history_item_id": lists})
    pq.write_table(table, path, row_group_size=rows)
    file = _Counting(path, "rb")
    monkeypatch.setattr(tables, "open_file", lambda path: file)
    types = {"a": pa.int64(), "history_item_id": lists.type}
    piece = tables.Piece(str(path), 0, (0,))
    found = [batch for _, batch in read_batches(piece, types)]
    assert pa.Table.from_batches(found).equals(table)
    assert sum(map(len, tables.read_column(str(path), "a"))) == rows
    # The larger column alone has 16 MB.
    assert path.stat().st_size > 15e6 and 2**20 <= file.most < 2**22
