import io
import pathlib
import pickle
import pickletools

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from tests import processes
from tests.preparation.examples.logs import read_rows
from tests.reference import histories
from tfrecords_tools.importers.dvbpr import import_dvbpr

ROOT = pathlib.Path(__file__).parents[3]
KEYS = ("productid", "imgs", "c", "asin", "categories", "reviewerID")


def _jpeg(mode, colour):
    stream = io.BytesIO()
    Image.new(mode, (9, 7), colour).save(stream, "JPEG")
    return stream.getvalue()


def _save(path, data):
    """Saves as NumPy did on Python 2, whose keys are byte strings."""
    array = np.empty(len(data), object)
    array[:] = data
    pickled = bytearray(pickle.dumps(array, protocol=2))
    for opcode, value, place in pickletools.genops(bytes(pickled)):
        if opcode.name == "BINUNICODE" and value in KEYS:
            pickled[place] = ord("T")  # BINSTRING: a str of Python 2
    with open(path, "wb") as handle:
        header = {"descr": "|O", "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.write(pickled)


def _clicks(*items):
    return [{"productid": item, "reviewerID": b"A1"} for item in items]


COLOUR, GREY = _jpeg("RGB", (200, 30, 30)), _jpeg("L", 120)
ITEMS = {
    0: {"asin": b"B0", "imgs": COLOUR, "c": np.eye(6)[2]},
    1: {"asin": b"B1", "imgs": GREY, "c": [0, 0, 0, 0, 0, 1]},
    2: {"asin": b"B2", "imgs": b"\xff\xd8 no JPEG", "c": np.eye(6)[0]},
    3: {"asin": b"B3", "imgs": b"", "c": np.eye(6)[0]},
    4: {"asin": b"B4", "c": np.zeros(6)},
    5: {"asin": b"B5", "imgs": COLOUR, "categories": [[b"Men", b"Shirts"], [b"Sale"]]},
    6: {"asin": b"B6", "imgs": GREY},
}
TRAIN = {0: _clicks(4, 1, 4), 1: _clicks(0), 2: []}
VALIDATION = {0: _clicks(2), 1: _clicks(5), 2: _clicks(3)}
TEST = {0: _clicks(0), 1: [], 2: _clicks(6)}
# user, item, place in the user's sequence, split
CLICKS = [
    (0, 4, 0, "train"),
    (0, 1, 1, "train"),
    (0, 4, 2, "train"),
    (0, 2, 3, "validation"),
    (0, 0, 4, "test"),
    (1, 0, 0, "train"),
    (1, 5, 1, "validation"),
    (2, 3, 0, "validation"),
    (2, 6, 1, "test"),
]
CLICKED = {(user, item) for user, item, _, _ in CLICKS}
DATASET = [TRAIN, VALIDATION, TEST, ITEMS, 3, 7]


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "fashion.npy"
    _save(path, DATASET)
    return path


def _import(dataset, name="shop", **options):
    output = dataset.parent / name
    import_dvbpr(dataset, output, **{"allow_pickle": True, **options})
    return output, pd.read_parquet(output / "impressions.parquet")


def test_items_and_images(dataset):
    shop, _ = _import(dataset)
    items = pd.read_parquet(shop / "items.parquet")
    assert items.item_id.tolist() == list(range(7))
    names = ["0.jpg", "1.jpg", "2.jpg", "", "", "5.jpg", "6.jpg"]
    assert items.image.tolist() == names
    assert items.category.tolist() == ["2", "5", "0", "0", "", "Shirts", ""]
    files = {path.name: path.read_bytes() for path in (shop / "images").iterdir()}
    assert files == {f"{n}.jpg": ITEMS[n]["imgs"] for n in (0, 1, 2, 5, 6)}


def test_clicks_and_negatives(dataset, capsys):
    _, log = _import(dataset, negatives=3)
    columns = ["user_id", "item_id", "timestamp", "split"]
    clicks = log[log.label == 1]
    assert list(clicks[columns].itertuples(index=False, name=None)) == CLICKS
    rest = log[log.label == 0]
    assert not CLICKED & set(zip(rest.user_id, rest.item_id, strict=True))
    assert rest.item_id.between(0, 6).all()
    # Three of each click's user, place and split.
    shared = ["user_id", "timestamp", "split"]
    assert rest.groupby(shared, sort=False).size().to_dict() == {
        (user, place, split): 3 for user, _, place, split in CLICKS
    }
    assert "7 items, 5 with an image; 9 clicks of 3 users, 27 negatives" in (
        capsys.readouterr().out
    )


def test_the_seed_decides(dataset):
    logs = [
        _import(dataset, str(name), negatives=9, seed=seed)[1]
        for name, seed in enumerate((1, 1, 2))
    ]
    pd.testing.assert_frame_equal(logs[0], logs[1])
    assert not logs[0].equals(logs[2])


def test_a_history_is_what_came_before_in_the_sequence(dataset):
    _, log = _import(dataset)
    for row, history in enumerate(histories(log, 100)):
        user, place = log.user_id[row], log.timestamp[row]
        before = [i for u, i, p, _ in CLICKS if u == user and p < place]
        assert log.item_id[history].tolist() == before


def test_a_click_and_its_negatives_are_a_request(dataset, tmp_path):
    shop, log = _import(dataset, negatives=2)
    tables = shop / "items.parquet", shop / "impressions.parquet"
    build_examples(*tables, tmp_path / "data")
    log = log.assign(history=histories(log, 100))
    names = ("user_id", "item_id", "label", "history_item_id")
    for split, count in (("train", 4), ("validation", 3), ("test", 2)):
        expected = [
            (
                (user,),
                tuple(rows.item_id),
                (1, 0, 0),
                tuple(log.item_id[rows.history.iloc[0]]),
            )
            for (user, _), rows in log[log.split == split].groupby(
                ["user_id", "timestamp"]
            )
        ]
        assert len(expected) == count
        found = read_rows(tmp_path / "data", split, *names)
        assert sorted(found) == sorted(expected)


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


def test_a_pickle_is_not_run_unasked(tmp_path):
    path, mark = tmp_path / "evil.npy", tmp_path / "executed"
    _save(path, [_Bomb(mark), {}, {}, {}, 0, 0])

    def run(*flags):
        words = (f"--input={path}", f"--output_dir={tmp_path / 'shop'}", *flags)
        return processes.run(["-m", "tfrecords_tools.import_dvbpr", *words], cwd=ROOT)

    result = run()
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "--allow_pickle" in result.stderr and "runs the code" in result.stderr
    assert not mark.exists() and not (tmp_path / "shop").exists()
    # The file is what it is said to be, and the flag is read.
    result = run("--allow_pickle")
    assert mark.exists()
    assert result.returncode == 2 and "user_train: expected dict" in result.stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATASET[:5], r"array of 6 objects.*shape \(5,\)"),
        ([*DATASET[:3], list(ITEMS.values()), 3, 7], "Item: expected dict.*list"),
        ([*DATASET[:4], 3, "7"], "itemnum: expected int.*str"),
        ([*DATASET[:4], 3, 8], "Item: expected the keys 0 to itemnum - 1 = 7.*7 keys"),
        ([*DATASET[:3], {0: b"jpeg"}, 3, 1], "Item: 0 is not a dict"),
        ([*DATASET[:4], 2, 7], "user_train: expected users 0 to usernum - 1 = 1.*2"),
        (
            [TRAIN, {1: _clicks(7)}, *DATASET[2:]],
            "user_validation, user 1: expected.*productid.*0 to 6.*7",
        ),
        ([{0: [4]}, *DATASET[1:]], "user_train, user 0: expected a dict.*4"),
        ([{}, {}, {0: []}, *DATASET[3:]], "no user has a click"),
    ],
)
def test_another_form_is_named(tmp_path, data, message):
    _save(tmp_path / "data.npy", data)
    with pytest.raises(InputError, match=message):
        import_dvbpr(tmp_path / "data.npy", tmp_path / "shop", allow_pickle=True)
    assert not (tmp_path / "shop").exists()


def test_unreadable_files(dataset):
    for path in (dataset.with_name("none.npy"), dataset.with_name("text.npy")):
        with pytest.raises(InputError, match=path.name):
            import_dvbpr(path, dataset.parent / "shop", allow_pickle=True)
        dataset.with_name("text.npy").write_text("no NumPy file")
    dataset.write_bytes(dataset.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be loaded"):
        import_dvbpr(dataset, dataset.parent / "shop", allow_pickle=True)
