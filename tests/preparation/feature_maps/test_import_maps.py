"""Stores of arrays that are at hand, against the arrays themselves."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.errors import InputError
from hccm_tf.preparation.feature_maps import settings, vector_files
from hccm_tf.preparation.feature_maps.extract import extract_feature_maps
from hccm_tf.preparation.feature_maps.import_maps import import_feature_maps
from tests.reference import read_maps

RNG = np.random.default_rng(0)
NAMES = [f"{number}.jpg" for number in range(11)]
VECTORS = RNG.standard_normal((11, 6)).astype(np.float32)
# A token of the class, and patches of 2 x 3.
TOKENS = RNG.standard_normal((11, 7, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Shards of 4 maps, batches of 3."""
    monkeypatch.setattr(settings, "SHARD_ROWS", 4)
    monkeypatch.setattr(vector_files, "BATCH_ROWS", 3)


def _column(arrays, kind):
    if kind == "tensor":
        return pa.FixedShapeTensorArray.from_numpy_ndarray(arrays)
    dtype = pa.from_numpy_dtype(arrays.dtype)
    for size in arrays.shape[:0:-1]:
        dtype = {
            "list": pa.list_(dtype),
            "large": pa.large_list(dtype),
            "fixed": pa.list_(dtype, size),
        }[kind]
    return pa.array(arrays.tolist(), dtype)


def write_parquet(path, arrays, names=NAMES, kind="list", column="map"):
    table = {"image": pa.array(names), column: _column(arrays, kind)}
    pq.write_table(pa.table(table), path, row_group_size=5)
    return path


def write_npz(path, arrays, names=NAMES, **others):
    np.savez(path, ids=np.array(names), maps=arrays, **others)
    return path


def import_to(path, input, **arguments):
    import_feature_maps(input, path, **{"encoder": "clip", **arguments})
    return FeatureMapStore.open(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.float64])
@pytest.mark.parametrize("kind", ["list", "large", "fixed", "tensor", "npz"])
def test_vectors(tmp_path, kind, dtype):
    vectors = (10 * VECTORS).astype(dtype)
    if kind == "npz":
        file = write_npz(tmp_path / "x.npz", vectors)
    else:
        file = write_parquet(tmp_path / "x.parquet", vectors, NAMES, kind, "vector")
    store = import_to(tmp_path / "maps", file)
    store.check()
    assert store.metadata["shard_rows"] == [4, 4, 3] and store.shape == (1, 1, 6)
    maps = read_maps(tmp_path / "maps")
    for name, vector in zip(NAMES, vectors.astype(np.float16), strict=True):
        np.testing.assert_array_equal(maps[name], vector[None, None])
    values = vectors.astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(store.channel_mean, values.mean(0), atol=1e-6)
    np.testing.assert_allclose(store.channel_std, values.std(0), rtol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", file.name]
    assert not (tmp_path / "maps" / "work").exists()


def test_a_folder_of_both_kinds_and_int8(tmp_path):
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    arrays = RNG.standard_normal((11, 3, 2, 5)).astype(np.float32)
    write_parquet(folder / "a.parquet", arrays[:4], NAMES[:4])
    np.savez_compressed(folder / "b.npz", ids=NAMES[4:9], maps=arrays[4:9])
    write_npz(folder / "c.npz", arrays[9:], NAMES[9:])
    store = import_to(tmp_path / "maps", folder, dtype="int8")
    table = pd.read_parquet(tmp_path / "maps" / "images.parquet").set_index("image")
    found = store.gather(table.row[NAMES].to_numpy() + 1).numpy()
    step = np.abs(arrays).max((1, 2), keepdims=True) / 127
    assert (np.abs(found - arrays) <= 0.51 * step + 0.002).all()
    assert set(store.metadata["crc32"]) == {
        path.name for path in (tmp_path / "maps").glob("*-of-*")
    }


@pytest.mark.parametrize(
    "layout", [{"height": 2}, {"width": 3}, {"height": 2, "width": 3}]
)
def test_patch_tokens(tmp_path, layout):
    file = write_npz(tmp_path / "x.npz", TOKENS)
    import_to(tmp_path / "maps", file, skip_tokens=1, **layout)
    maps = read_maps(tmp_path / "maps")
    for name, tokens in zip(NAMES, TOKENS.astype(np.float16), strict=True):
        for row in range(2):
            for column in range(3):
                token = tokens[1 + 3 * row + column]
                np.testing.assert_array_equal(maps[name][row, column], token)


def test_tokens_that_are_a_square(tmp_path):
    file = write_parquet(tmp_path / "x.parquet", TOKENS[:, :4])
    import_to(tmp_path / "maps", file)
    maps = read_maps(tmp_path / "maps")
    expected = TOKENS[7, :4].astype(np.float16).reshape(2, 2, 4)
    np.testing.assert_array_equal(maps[NAMES[7]], expected)


def _nan(place):
    arrays = VECTORS.copy()
    arrays[place, 2] = np.nan
    return arrays


def _ragged():
    lists = VECTORS.tolist()
    lists[8] = lists[8][:5]
    return pa.table({"image": NAMES, "vector": lists})


def _null(value):
    lists = VECTORS.tolist()
    lists[8] = value
    return pa.table({"image": NAMES, "vector": lists})


WRONG = {
    "twice": (
        lambda f: write_npz(f, VECTORS, [*NAMES[:10], "3.jpg"]),
        "row 11: .*3.jpg",
    ),
    "no name": (lambda f: write_npz(f, VECTORS, ["", *NAMES[1:]]), "row 1: no name"),
    "NaN": (lambda f: write_npz(f, _nan(6)), "row 7: .*finite"),
    "overflow": (lambda f: write_npz(f, VECTORS * 1e6), "row 1: .*65504"),
    "pickled": (
        lambda f: np.savez(f, ids=np.array(NAMES, object), maps=VECTORS),
        "ids and maps",
    ),
    "no maps": (lambda f: np.savez(f, ids=NAMES, map=VECTORS), "arrays ids and maps"),
    "no ids": (lambda f: np.savez(f, maps=VECTORS), "arrays ids and maps"),
    "text": (lambda f: write_npz(f, np.array(NAMES)), "maps: numbers"),
    "Fortran": (lambda f: write_npz(f, np.asfortranarray(VECTORS)), "Fortran"),
    "short": (lambda f: write_npz(f, VECTORS[:9]), "fewer arrays than names"),
    "long": (lambda f: write_npz(f, VECTORS, NAMES[:9]), "more arrays than names"),
    "tokens": (lambda f: write_npz(f, TOKENS), "7 patch tokens are not 2 x 3: name"),
    "5 axes": (lambda f: write_npz(f, np.ones((11, 1, 1, 1, 1))), "vectors \\[D\\]"),
    "broken": (lambda f: f.write_bytes(b"PK\x03\x04"), "arrays ids and maps"),
}
WRONG_PARQUET = {
    "ragged": (_ragged(), "row 9: a list of another length .* 6. Received: 5"),
    "null": (_null(None), "row 9: a list.*Received: null"),
    "gap": (_null([1.0, None, 1.0, 1.0, 1.0, 1.0]), "row 9: a value is missing"),
    "text": (pa.table({"image": NAMES, "map": [["a"]] * 11}), "no lists of numbers"),
    "scalars": (pa.table({"image": NAMES, "map": [1] * 11}), "vectors \\[D\\]"),
    "columns": (
        pa.table({"id": NAMES, "map": [[1]] * 11}),
        "Received columns: id, map",
    ),
    "empty": (pa.table({"image": NAMES[:0], "map": [[1]][:0]}), "no row"),
}


@pytest.mark.parametrize(
    "case", [*WRONG, *(f"{name}.parquet" for name in WRONG_PARQUET)]
)
def test_what_is_wrong_is_named(tmp_path, case):
    if case.endswith(".parquet"):
        table, message = WRONG_PARQUET[case.removesuffix(".parquet")]
        file = tmp_path / "x.parquet"
        pq.write_table(table, file)
    else:
        write, message = WRONG[case]
        file = tmp_path / "x.npz"
        write(file)
    with pytest.raises(
        InputError, match=f"(?s){file.name}.*{message}|{message}.*{file}"
    ):
        import_to(tmp_path / "maps", file)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_what_is_wrong_with_the_arguments(tmp_path):
    file = write_npz(tmp_path / "x.npz", VECTORS)
    for arguments, message in (
        ({"encoder": None}, "^encoder: "),
        ({"dtype": "int8"}, "^dtype=int8"),
        ({"skip_tokens": 1}, "^skip_tokens, .* of patch tokens.*x.npz"),
        ({"extend": tmp_path / "none"}, "feature_maps.json"),
    ):
        with pytest.raises(InputError, match=message):
            import_to(tmp_path / "maps", file, **arguments)
    for input, message in ((tmp_path / "none", "^input"), (tmp_path, "x.txt")):
        (tmp_path / "x.txt").touch()
        with pytest.raises(InputError, match=message):
            import_to(tmp_path / "maps", input)
    assert {path.name for path in tmp_path.iterdir()} == {"x.npz", "x.txt"}


def test_extend(tmp_path, shop):
    first = write_npz(tmp_path / "first.npz", VECTORS[:6], NAMES[:6])
    old = import_to(tmp_path / "old", first)
    every = write_parquet(tmp_path / "all.parquet", VECTORS, column="vector")
    store = import_to(tmp_path / "new", every, extend=tmp_path / "old", encoder=None)
    store.check()
    assert store.cnn == old.cnn and store.metadata["shard_rows"] == [4, 2, 4, 1]
    for files, same in zip(store.shards, old.shards, strict=False):
        assert [f.stat().st_ino for f in files] == [f.stat().st_ino for f in same]
    import_to(tmp_path / "whole", every)
    maps, whole = read_maps(tmp_path / "new"), read_maps(tmp_path / "whole")
    assert set(maps) == set(whole) == set(NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(maps[name], whole[name])
    np.testing.assert_allclose(store.channel_std, VECTORS.std(0), rtol=1e-3, atol=1e-3)
    # Nothing that is new.
    again = import_to(tmp_path / "again", first, extend=tmp_path / "new")
    assert again.metadata["count"] == 11

    def refused(message, input=every, **arguments):
        with pytest.raises(InputError, match=message):
            import_to(tmp_path / "refused", input, **arguments)
        assert not (tmp_path / "refused").exists()

    extend = {"extend": tmp_path / "old"}
    refused("^encoder=dino contradicts .*clip", encoder="dino", **extend)
    wider = write_npz(tmp_path / "wider.npz", RNG.random((11, 7)))
    refused("wider.npz: row 1: .*\\(1, 1, 6\\)", wider, **extend)
    # The same name, but other vectors of photos that the old store has.
    other = VECTORS.copy()
    other[4:] = VECTORS[4:, ::-1]
    other = write_npz(tmp_path / "other.npz", other)
    refused("other.npz: row 5: image 4.jpg has another map", other, **extend)
    refused("^extend: the maps of .* were not imported", extend=shop.maps)
    with pytest.raises(InputError, match="^extend: .*imported"):
        extract_feature_maps(["a"], tmp_path, tmp_path / "refused", **extend)


def test_an_encoder_is_known_by_its_name(tmp_path):
    file = write_npz(tmp_path / "x.npz", VECTORS)
    stores = [import_to(tmp_path / name, file, encoder=name) for name in ("a", "b")]
    assert stores[0].cnn != stores[1].cnn
    metadata = json.loads((tmp_path / "a" / "feature_maps.json").read_text())
    assert (metadata["backbone"], metadata["weights"]) == ("a", "imported")
