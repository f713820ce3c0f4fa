"""What each command says of inputs that are not of their form: one line, the place."""

import errno
import json
import pathlib
import shutil
import tempfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hccm_tf import report
from hccm_tf.serving import server_config
from tests.one_process import run_here, what_is_wrong
from tests.preparation.examples.logs import make_items, make_log
from tfrecords_tools import (
    build_examples,
    extract_feature_maps,
    inspect_examples,
    make_demo,
    refresh_export,
    validate,
)
from tfrecords_tools.importers import amazon_reviews, dvbpr, microlens

DEEP = "[" * 100_000
HALF = "\ud800"
ITEM = {"parent_asin": "B1", "main_category": "a", "images": [], "price": 1.0}
AMAZON = {
    "nested categories": {"categories": ["a", ["b", ["c"]]]},
    "a category of numbers": {"categories": [1, 2]},
    "categories that are a number": {"categories": 7},
    "a number for a category": {"main_category": 5},
    "a number for a store": {"store": 5},
    "a list for a store": {"store": ["a"]},
    "half a character": {"store": HALF},
    "half a character in the URL": {"images": [{"large": HALF}]},
    "a number for a URL": {"images": [{"large": 5}]},
    "a number for the images": {"images": 5},
    "text for the images": {"images": "a.jpg"},
    "numbers for images": {"images": [5]},
    "a number for a column of images": {"images": {"large": 5}},
    "an object for a price": {"price": {"amount": 5}},
    "a list for an id": {"parent_asin": ["B1"]},
}
FEATURE = {"name": "hour", "kind": "vocabulary"}
SCHEMAS = {
    "a hash of 2^40": {"kind": "hash", "size": 2**40},
    "half a bucket": {"kind": "hash", "size": 1.5},
    "text for size": {"kind": "hash", "size": "10"},
    "true for size": {"kind": "hash", "size": True},
    "less than no value": {"kind": "integer", "size": -1},
    "text for std": {"kind": "float", "std": "1"},
    "no deviation": {"kind": "float", "std": 0.0},
    "a std of NaN": {"kind": "float", "std": float("nan")},
    "an endless mean": {"kind": "float", "mean": float("inf")},
    "a mean of 10^400": {"kind": "float", "mean": 10**400},
    "a list for mean": {"kind": "float", "mean": [1]},
    "a list for kind": {"kind": ["float"]},
    "no kind": {"kind": None},
    "another dtype": {"dtype": "int32"},
    "a list for dtype": {"dtype": ["int64"]},
    "a number for a name": {"name": 5},
    "no name": {"name": ""},
    "null for a name": {"name": None},
    "half a character": {"name": HALF},
    "text for embedding_dim": {"embedding_dim": "8"},
    "no column": {"embedding_dim": 0},
    "half a column": {"embedding_dim": 1.5},
    "a number for shares": {"kind": "sequence", "shares": 5, "name": "history_5"},
    "text for candidate": {"candidate": "yes"},
    "text for frequency": {"frequency": "often"},
}
FILES = {
    "no feature": {"features": []},
    "features that are no list": {"features": 5},
    "features that are an object": {"features": {"name": "hour"}},
    "features that are numbers": {"features": [5]},
    "text for max_history": {"max_history": "8"},
    "no history": {"max_history": 0},
    "text for the rate": {"negative_keep_rate": "1"},
    "a rate of NaN": {"negative_keep_rate": float("nan")},
    "another format": {"format": [2]},
}
TEXTS = {
    "nothing": "",
    "half a file": '{"features": [',
    "a list": "[]",
    "an empty object": "{}",
    "a number": "5",
    "deep JSON": DEEP,
    "no UTF-8": b"\xff\xfe",
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with a catalogue, a log and the data folder of both."""
    folder = tmp_path_factory.mktemp("malformed")
    make_items().to_parquet(folder / "items.parquet")
    make_log(40, hour=range(40)).to_parquet(folder / "log.parquet")
    assert _build(folder, folder / "data") == (0, "")
    return folder


def _build(tables, output, **paths):
    names = {"items": "items.parquet", "impressions": "log.parquet"}
    words = {name: tables / path for name, path in names.items()} | paths
    words = [f"--{name}={path}" for name, path in words.items()]
    return run_here(build_examples, *words, f"--output_dir={output}")


def _write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _refuses(cases, run, place):
    """Asserts that a command refuses each of some cases, dict name → input."""
    wrong = {name: what_is_wrong(run(case), place) for name, case in cases.items()}
    wrong = {name: text for name, text in wrong.items() if text}
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())


def test_metadata_of_amazon(tmp_path):
    reviews = "user_id,parent_asin,rating,timestamp\nu,B1,5,1588615855070\n"
    _write(tmp_path / "reviews.csv", reviews)

    def run(text, reviews="reviews.csv"):
        _write(tmp_path / "meta.jsonl", text)
        return run_here(
            amazon_reviews,
            f"--meta={tmp_path / 'meta.jsonl'}",
            f"--reviews={tmp_path / reviews}",
            f"--output_dir={tmp_path / 'shop'}",
            "--negatives=0",
        )

    good = json.dumps(ITEM)
    cases = {name: json.dumps({**ITEM, **item}) for name, item in AMAZON.items()}
    # Blank lines are passed over, and one of another form is no item.
    texts = {name: text for name, text in TEXTS.items() if name != "nothing"}
    _refuses(cases | texts, run, "meta.jsonl: line 1")
    _refuses({"nothing": ""}, run, "meta.jsonl")
    logs = {
        "no column": "user_id,timestamp\nu,1588615855070\n",
        "no time": "user_id,parent_asin,timestamp\nu,B1,then\n",
        "seconds": "user_id,parent_asin,timestamp\nu,B1,1588615855\n",
        "a time of 30 digits": f"user_id,parent_asin,timestamp\nu,B1,{'9' * 30}\n",
        "too few fields": "user_id,parent_asin,timestamp\nu,B1\n",
        "no UTF-8": b"user_id,parent_asin,timestamp\n\xff,B1,1588615855070\n",
        "a header of no UTF-8": b"\xff,parent_asin,timestamp\nu,B1,1588615855070\n",
        "nothing": "",
    }

    def run_log(text):
        _write(tmp_path / "log.csv", text)
        return run(good, "log.csv")

    _refuses(logs, run_log, "log.csv")
    assert not (tmp_path / "shop").exists()
    assert run(good)[0] == 0
    # A price that no float holds is none.
    for price in ("1" + "0" * 400, '"' + "9" * 400 + '"', "1e400"):
        shutil.rmtree(tmp_path / "shop")
        assert run(good.replace("1.0", price))[0] == 0
        items = pd.read_parquet(tmp_path / "shop" / "items.parquet")
        assert items.price.isna().all()


def test_files_of_dvbpr(tmp_path):
    clicks = {0: [{b"productid": 0}]}
    good = [clicks, {}, {}, {0: {}, 1: {}}, 1, 2]

    def run(changes):
        data = np.empty(6, object)
        data[:] = [changes.get(place, value) for place, value in enumerate(good)]
        np.save(tmp_path / "data.npy", data, allow_pickle=True)
        return run_here(
            dvbpr,
            f"--input={tmp_path / 'data.npy'}",
            f"--output_dir={tmp_path / 'shop'}",
            "--allow_pickle",
        )

    cases = {
        "clicks that are no list": {0: {0: 5}},
        "clicks that are text": {0: {0: "clicks"}},
        "a click that is a number": {0: {0: [5]}},
        "a click without an item": {0: {0: [{}]}},
        "a click on an item of text": {0: {0: [{b"productid": "0"}]}},
        "a user of text": {0: {"0": []}},
        "a user of half a number": {0: {0.5: []}},
        "users that are a list": {0: [clicks]},
        "no clicks": {0: {}},
        "items that are numbers": {3: {0: 1, 1: 2}},
        "an item of text": {3: {0: {}, "1": {}}},
        "too few items": {3: {0: {}}},
        "10^400 items": {5: 10**400},
        "10^12 items": {5: 10**12},
        "less than no item": {5: -1},
        "half an item": {5: 1.5},
        "half a character": {3: {0: {b"categories": [[HALF]]}, 1: {}}},
    }
    _refuses(cases, run, "data.npy")
    _write(tmp_path / "data.npy", "text")
    code, error = run_here(
        dvbpr, f"--input={tmp_path / 'data.npy'}", "--output_dir=x", "--allow_pickle"
    )
    assert not what_is_wrong((code, error), "data.npy")
    assert run({})[0] == 0


def test_files_of_microlens(tmp_path):
    log = {
        "user_id": [1, 2],
        "item_id": [1, 2],
        "item_seq": [[0, 2], [0, 1]],
        "likes_level": [1, 2],
        "views_level": [2, 1],
        "label": [0, 1],
    }
    items = {"item_id": [1, 2], "item_tags": [[3], [0, 4]]}
    tables = {"train": log, "valid": log, "item_info": items}

    def run(change):
        file, column, values = change
        for name, table in tables.items():
            changed = {column: values} if name == file else {}
            changed = {n: v for n, v in (table | changed).items() if v is not None}
            pq.write_table(pa.table(changed), tmp_path / f"{name}.parquet")
        return run_here(
            microlens, f"--input={tmp_path}", f"--output_dir={tmp_path / 'shop'}"
        )

    text, nested = ["a", "b"], [[[1]], [[2]]]
    for file, columns in (("train", log), ("item_info", items)):
        cases = {
            f"{column}: {values}": (file, column, values)
            for column in columns
            for values in (None, text, nested, [{"a": 1}, {"a": 2}], [0.5, 1.5])
            # Users are hashed, whatever they are: but they are numbers here.
        }
        _refuses(cases, run, f"{file}.parquet")
    for text in ("", "text", b"PAR1" + bytes(40) + b"PAR1"):
        run(("none", "", None))
        shutil.rmtree(tmp_path / "shop")
        _write(tmp_path / "train.parquet", text)
        found = run_here(
            microlens, f"--input={tmp_path}", f"--output_dir={tmp_path / 'shop'}"
        )
        assert not what_is_wrong(found, "train.parquet")


def test_edited_schemas(tables, tmp_path):
    path = tmp_path / "edited.json"

    def run(text):
        _write(path, text)
        return _build(tables, tmp_path / "data", schema=path)

    whole = {"max_history": 8, "features": [FEATURE]}
    cases = {
        name: json.dumps({**whole, "features": [FEATURE | feature]})
        for name, feature in SCHEMAS.items()
    }
    cases |= {name: json.dumps(whole | file) for name, file in FILES.items()}
    _refuses(cases | TEXTS, run, "edited.json: ")
    nowhere = {**whole, "features": [FEATURE | {"name": "nowhere"}]}
    _refuses({"a column that is not there": json.dumps(nowhere)}, run, "nowhere")
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_is_no_utf8(tables, tmp_path):
    """Arrow reads it from a Parquet file without a word."""
    bad = pa.array([b"\xff\xfe"] * 40).cast(pa.binary()).view(pa.string())
    log = pq.read_table(tables / "log.parquet")
    items = pq.read_table(tables / "items.parquet")
    cases = {
        "impressions": log.append_column("query", bad),
        "items": items.append_column("brand", bad.slice(0, len(items))),
    }
    for name, table in cases.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path)
        found = _build(tables, tmp_path / "data", **{name: path})
        assert not what_is_wrong(found, f"{name}.parquet: column ")


def _outputs(tmp_path):
    """Places that cannot be written."""
    _write(tmp_path / "file", "")
    return ["/proc/nowhere", tmp_path / "file" / "x", tmp_path / ("x" * 250)]


def test_outputs_that_cannot_be_written(tables, tmp_path, monkeypatch):
    """They are found before the work."""
    # So that nothing else can be what fails.
    monkeypatch.setattr(
        "hccm_tf.preparation.examples.build.run_steps", lambda *_: 1 / 0
    )
    items = tables / "items.parquet"
    for output in _outputs(tmp_path):
        output = f"--output_dir={output}"
        for found in (
            _build(tables, output.partition("=")[2]),
            run_here(make_demo, output),
            run_here(extract_feature_maps, f"--items={items}", output, "--image_dir=."),
            run_here(dvbpr, "--input=x.npy", output),
            run_here(amazon_reviews, "--meta=x", "--reviews=x", output),
            run_here(microlens, "--input=x", output),
        ):
            assert not what_is_wrong(found, "cannot be written")


def test_damaged_data_folders(tables, tmp_path):
    read_first = ("schema.json", "dataset_info.json")
    data = tmp_path / "data"
    shutil.copytree(tables / "data", data)
    for name in (*read_first, "summary.json", "catalogue.parquet"):
        whole = (data / name).read_bytes()
        for what, text in TEXTS.items():
            _write(data / name, text)
            if name in read_first:
                found = run_here(inspect_examples, f"--data_dir={data}")
                assert not what_is_wrong(found, name), (name, what)
        # It reads on, and has a line for each fault.
        for text in (DEEP, whole[: len(whole) // 2]):
            _write(data / name, text)
            code, errors = run_here(validate, f"--data_dir={data}")
            assert code == 1 and name in errors.partition("\n")[0], (name, errors)
            assert all(line.startswith("error: ") for line in errors.splitlines())
        _write(data / name, whole)


def test_versions_that_are_none(tmp_path, monkeypatch):
    def run(name):
        folder = tmp_path / "models" / "din"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        return run_here(server_config, f"--models_dir={folder.parent}")

    cases = {name: name for name in ("²", "٣", "1²", "9" * 30, "-1", "1.0", "007")}
    _refuses(cases, run, "models_dir")
    _refuses(
        {"²": "²"},
        lambda name: run_here(
            refresh_export,
            f"--export_dir={tmp_path / 'models' / 'din'}",
            f"--items={tmp_path}",
        ),
        "no version to refresh",
    )
    (tmp_path / "models" / "din" / "2").mkdir()
    # As if it were whole.
    monkeypatch.setattr("hccm_tf.serving.server_config.missing", lambda version: "")
    _refuses(
        {stable: stable for stable in ("din:²", "din:", "din:" + "9" * 5000, "din:3")},
        lambda stable: run_here(
            server_config, f"--models_dir={tmp_path / 'models'}", f"--stable={stable}"
        ),
        "--stable",
    )


def test_a_disk_that_is_read_only(tmp_path, monkeypatch):
    """It is found before the work, here before the versions are looked at."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "din" / "2").mkdir(parents=True)
    monkeypatch.setattr("hccm_tf.serving.server_config.missing", lambda version: "")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    refresh = f"--export_dir={tmp_path / 'din'}", f"--items={tmp_path}"
    for found, place in (
        (run_here(server_config, f"--models_dir={tmp_path}"), "--models_dir="),
        (run_here(refresh_export, *refresh), "--export_dir="),
    ):
        assert not what_is_wrong(found, f"{place}{tmp_path}")
        assert "cannot be written (Read-only file system)" in found[1]


def test_metrics_that_are_none(tmp_path):
    def run(text):
        _write(pathlib.Path(tmp_path / "metrics.json"), text)
        return run_here(report, tmp_path)

    _refuses(TEXTS | {"no test": '{"model": "din"}'}, run, "metrics.json")
