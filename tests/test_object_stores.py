"""Object stores, by a server of s3 in this process, on the loopback address."""

import pathlib

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from hccm_tf import atomic, object_stores
from hccm_tf.data import local_copy as copies
from hccm_tf.data.dataset import Batches
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.local_copy import local_copy
from hccm_tf.errors import InputError
from hccm_tf.files import crc32, open_file, require_scheme
from hccm_tf.images.read import decode_image
from hccm_tf.object_stores import BUFFER_BYTES
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.feature_maps.extract import extract_feature_maps
from hccm_tf.preparation.feature_maps.import_maps import import_feature_maps
from hccm_tf.preparation.tables import read_table, read_types, table_files
from tests.conftest import MAPS, MAX_HISTORY
from tests.flags.test_read import read

# A name that a URL would have to quote.
ODD = "odd names/?a=1#b@c ü%20.csv"


@pytest.fixture(scope="module")
def bucket(shop):
    """The shop's tables, photos, DATA and MAPS in a bucket, of s3's client."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="shop")
        for folder in ("shop", "data", "maps"):
            for file in (shop.path / folder).rglob("*"):
                if file.is_file():
                    key = file.relative_to(shop.path).as_posix()
                    client.upload_file(str(file), "shop", key)
        yield client
    server.stop()


def _put(bucket, **files):
    for name, content in files.items():
        bucket.put_object(Bucket="shop", Key=name, Body=content)


def test_a_file_and_a_folder_of_tables(bucket, shop):
    columns = ["item_id", "image", "category"]
    found = read_table("s3://shop/shop/items.csv", columns)
    assert found == read_table(shop.path / "shop" / "items.csv", columns)
    parquet = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [3]}), parquet)
    _put(
        bucket,
        **{
            "log/1.csv": b"a\n1\n2\n",
            "log/2.parquet": parquet.getvalue().to_pybytes(),
            "log/_SUCCESS": b"",
            ODD: b"a\n7\n",
        },
    )
    for folder in ("s3://shop/log", "s3://shop/log/"):
        files = [f"s3://shop/log/{name}" for name in ("1.csv", "2.parquet")]
        assert table_files(folder) == files
        assert read_table(folder, ["a"])["a"].to_pylist() == [1, 2, 3]
    assert read_table(f"s3://shop/{ODD}", ["a"])["a"].to_pylist() == [7]
    _put(bucket, **{"log/below/3.csv": b"a\n1\n"})
    with pytest.raises(InputError, match="s3://shop/log/below: neither a .csv nor a"):
        table_files("s3://shop/log")


def test_files_are_streams(bucket):
    lines = b"".join(b"%d\n" % number for number in range(2**20))
    _put(bucket, **{"large.csv": lines})
    with open_file("s3://shop/large.csv") as file:
        assert file.readline() == b"0\n"
        assert file.raw.tell() <= BUFFER_BYTES < len(lines) / 4
        assert file.seek(-2, 2) == len(lines) - 2 and file.read() == lines[-2:]
    _put(bucket, **{"bad.csv": b"a\n1\n\xe4\n"})
    with pytest.raises(InputError, match="bad.csv: column a, line 3: not UTF-8"):
        read_types("s3://shop/bad.csv", ["a"])


def test_data_from_tables(bucket, shop, tmp_path):
    build_examples(
        "s3://shop/shop/items.csv",
        "s3://shop/shop/impressions.csv",
        tmp_path / "data",
        max_history=MAX_HISTORY,
    )
    for path in shop.data.glob("*.tfrecord-*"):
        assert crc32(tmp_path / "data" / path.name) == crc32(path)


def test_maps_from_photos(bucket, shop, tmp_path):
    names = [name for name in shop.items.image.unique() if name]
    folder = "s3://shop/shop/images"
    extract_feature_maps(names, folder, tmp_path / "maps", **MAPS)
    for path in shop.maps.glob("*.f16"):
        assert crc32(tmp_path / "maps" / path.name) == crc32(path)
    skipped = [
        (path / "skipped.csv").read_text() for path in (tmp_path / "maps", shop.maps)
    ]
    assert skipped[0] == skipped[1] and "no such file" in skipped[0]


def test_names_of_photos(bucket, shop):
    name = min(path.name for path in shop.images.iterdir())

    def reason(name, folder="s3://shop/shop/images"):
        return decode_image(name, folder, 4)[1]

    for good in (name, f"/{name}", f"x/../{name}", f"s3://shop/shop/images/{name}"):
        expected = decode_image(name, shop.images, 4)
        np.testing.assert_equal(
            decode_image(good, "s3://shop/shop/images", 4), expected
        )
    for out in (f"../images/{name}", f"x/../../images/{name}", ".."):
        assert reason(out) == "cannot be read: it leads out of image_dir"
    assert reason("none.jpg") == "no such file"
    assert reason("s3://shop/none.jpg") == "no such file"
    assert reason(f"s3://key:secret@shop/{name}").startswith("cannot be read: s3://: ")


def test_imported_maps(bucket, shop, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    names = ["a", "b", "c"]
    np.savez(tmp_path / "v.npz", ids=np.array(names), maps=vectors)
    pq.write_table(
        pa.table({"image": names, "vector": vectors.tolist()}), tmp_path / "v.parquet"
    )
    for suffix in ("npz", "parquet"):
        bucket.upload_file(str(tmp_path / f"v.{suffix}"), "shop", f"v.{suffix}")
        output = tmp_path / suffix
        import_feature_maps(f"s3://shop/v.{suffix}", output, encoder="mine")
        store = FeatureMapStore.open(output)
        maps = store.gather(np.sort(store.rows) + 1).numpy()
        np.testing.assert_array_equal(maps[:, 0, 0], vectors.astype(np.float16))


def _files(folder):
    """Name → content of what is below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file()
    }


def test_a_training_reads_copies(bucket, shop, tmp_path):
    flags = ["--model=hccm", "--data_dir=s3://shop/data", "--run_dir=RUN"]
    flags += ["--feature_maps=s3://shop/maps/"]
    with pytest.raises(InputError, match="^cache_dir: .*s3://shop/data is missing"):
        read(*flags)
    told = read(*flags, f"--cache_dir={tmp_path}")
    assert _files(told.data_dir) == _files(shop.data)
    # Neither the CNN's weights nor the list of what was skipped.
    assert set(_files(told.feature_maps)) == {
        *("feature_maps.json", "images.parquet", "feature_maps-00000-of-00001.f16")
    }
    assert len(list(tmp_path.iterdir())) == 2
    store = FeatureMapStore.open(told.feature_maps)
    assert store.checksums() == shop.store.checksums()
    remote, local = (
        Batches(path, shop.schema, 100, images).dataset("test")
        for path, images in ((told.data_dir, store), (shop.data, shop.store))
    )
    for found, expected in zip(remote, local, strict=True):
        for name in expected[0]:
            np.testing.assert_array_equal(found[0][name], expected[0][name])


def test_only_what_a_model_takes_is_copied(bucket, tmp_path):
    flags = ["--data_dir=s3://shop/data", "--feature_maps=s3://shop/none"]
    read("--model=din", *flags, f"--cache_dir={tmp_path}", "--run_dir=RUN")
    assert len(list(tmp_path.iterdir())) == 1
    # TensorFlow reads some where they are.
    told = read("--model=din", "--data_dir=gs://shop/data", "--run_dir=RUN")
    assert told.data_dir == "gs://shop/data"
    with pytest.raises(InputError, match="^run_dir=s3://shop/RUN: nothing is written"):
        read("--model=din", *flags, "--run_dir=s3://shop/RUN")


def test_what_is_copied_again(bucket, tmp_path, monkeypatch):
    asked = []

    def download(address, file):
        asked.append(address.rpartition("/")[2])
        if address.endswith(fails):
            raise OSError("it is gone")
        return object_stores.download(address, file)

    def copy():
        asked.clear()
        return local_copy("s3://shop/box", tmp_path, ("*.json", "v/*.json"))

    monkeypatch.setattr(copies, "download", download)
    monkeypatch.setattr(copies, "THREADS", 1)
    names = ("box/1.json", "box/v/2.json", "box/v/w/3.json", "box/4.txt")
    _put(bucket, **dict.fromkeys(names, b"old"))
    fails = ".none"
    first = copy()
    assert _files(first) == {"1.json": b"old", "v/2.json": b"old"}
    assert copy() == first and not asked
    # A copy for each state of the folder; a file may change and keep its size.
    _put(bucket, **{"box/1.json": b"longer"})
    fails = "2.json"
    with pytest.raises(InputError, match="s3://shop/box: it is gone"):
        copy()
    fails = ".none"
    (unfinished,) = tmp_path.glob("*.incomplete")
    assert _files(unfinished) == {"1.json": b"longer"}
    # As a process leaves it that is killed.
    (unfinished / "v" / "2.json.0a1b2c3d.part").touch()
    second = copy()
    assert asked == ["2.json"]
    assert _files(second) == {"1.json": b"longer", "v/2.json": b"old"}
    assert _files(first)["1.json"] == b"old"


def test_a_folder_that_changes_while_it_is_copied(bucket, tmp_path, monkeypatch):
    def download(address, file):
        object_stores.download(address, file)
        _put(bucket, **{"changing/1.json": b"newer"})

    _put(bucket, **{"changing/1.json": b"old"})
    monkeypatch.setattr(copies, "download", download)
    with pytest.raises(InputError, match="s3://shop/changing: it changed"):
        local_copy("s3://shop/changing", tmp_path, ["*.json"])
    assert list(tmp_path.iterdir()) == []


def _line(function, *arguments):
    """The one line of an error that names what is to be mended."""
    with pytest.raises(InputError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_addresses_that_are_wrong(bucket, tmp_path):
    for path, reason in {
        "s3://nobody/items.csv": "no such bucket, nobody",
        "s3://shop/none.csv": "no such file, or a folder without .csv or .parquet",
        "s3://shop/data": "neither a .csv nor a .parquet",
    }.items():
        line = _line(read_table, path, ["a"])
        assert line.startswith(path) and reason in line
    for bad in ("shop?region=eu", "key:secret@shop", "shop#1", ""):
        line = _line(read_table, f"s3://{bad}/items.csv", ["a"])
        assert line.startswith("s3://: ") and "secret" not in line
    assert "foo://shop/a.csv: " in _line(read_table, "foo://shop/a.csv", ["a"])
    for path in ("s3://shop/none", "s3://nobody/DATA"):
        assert path in _line(local_copy, path, tmp_path, ["*"])
    assert "s3://shop/maps: " in _line(FeatureMapStore.open, "s3://shop/maps")
    assert "--cache_dir" in _line(require_scheme, "s3://shop/data")
    line = _line(extract_feature_maps, ["a.jpg"], "s3://shop/none", tmp_path / "maps")
    assert line == "image_dir=s3://shop/none: no such folder, of images such as a.jpg"
    with pytest.raises(FileNotFoundError, match="no such file: 's3://shop/none'"):
        open_file("s3://shop/none")
    with pytest.raises(OSError, match="more than 2 bytes: 's3://shop/data/schema"):
        open_file("s3://shop/data/schema.json", 2)


def test_a_store_that_does_not_answer(monkeypatch):
    """Which pyarrow waits for, and libraries that are not there say on many lines."""

    def no_answer(bucket):
        raise OSError("AWS Error NETWORK_CONNECTION\nand more")

    monkeypatch.setattr(object_stores, "_file_system", no_answer)
    line = _line(read_table, "s3://closed/a.csv", ["a"])
    assert line.startswith("s3://closed/a.csv: AWS Error NETWORK_CONNECTION; the")
    assert "and more" not in line and "AWS_ENDPOINT_URL" in line
    line = _line(extract_feature_maps, ["a.jpg"], "hdfs://closed:1/a", "maps")
    assert line.startswith("image_dir=hdfs://closed:1/a: AWS Error NETWORK_CONNECTION")


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_nothing_is_written_to_a_store(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = kind("s3://shop/DATA")
    for write in (atomic.new_folder, atomic.only_writer):
        with pytest.raises(InputError, match="^s3://shop/DATA: nothing is written"):
            with write(path):
                pass
    with pytest.raises(InputError, match="^s3://shop/DATA: nothing is written"):
        atomic.check_can_make(path)
    assert list(tmp_path.iterdir()) == []
