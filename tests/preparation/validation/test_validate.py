import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.feature import Feature
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.validation.validate import (
    compare_histories,
    read_shard,
    validate,
)
from tests import processes
from tests.preparation.validation.folders import (
    check_errors,
    edit_json,
    figures,
    read,
    values,
    write,
)
from tests.reference import histories

MAX_HISTORY = 8
COLUMNS = ("item_id", "category", "image")


def _copy(shop, tmp_path):
    return pathlib.Path(shutil.copytree(shop.data, tmp_path / "data"))


# --- The report ---------------------------------------------------------------------


def test_the_figures_are_those_of_the_log(shop):
    lines, errors = validate(shop.data, shop.maps)
    assert errors == []
    assert lines[0].endswith("a catalogue of 60 items")
    catalogue = set(shop.items.image.dropna()) - {""}
    mapped = set(pd.read_parquet(shop.maps / "images.parquet").image)
    assert lines[1] == (
        f"feature maps of {len(mapped)} of the catalogue's {len(catalogue)} images"
    )
    assert "impressions whose user, item and second came before: 0" in lines
    assert "histories were compared with the clicks of undamaged shards" in lines
    log = shop.log.fillna({"image": ""})
    lengths = log.history.map(len)
    train = log[log.split == "train"]
    expected = {}
    for split, rows in log.groupby("split"):
        length = lengths[rows.index]
        requests = rows.groupby(["user_id", "timestamp"]).ngroups
        column = {
            "impressions": str(len(rows)),
            "requests": str(requests),
            "candidates a request, mean": f"{len(rows) / requests:.2f}",
            "history length, mean": f"{length.mean():.2f}",
            "history length, median": f"{length.median():g}",
            "history length, max": str(length.max()),
        }
        marks = {
            "click rate": rows.label == 1,
            "without history": length == 0,
            "without image": rows.image == "",
            "image without feature map": ~rows.image.isin({*mapped, ""}),
            "price not finite": rows.price.isna(),
        }
        for name in ("user_id", "item_id", "hour", "image", "category"):
            unseen = ~rows[name].isin(train[name]) & (rows[name] != "")
            marks[f"{name} unseen in training"] = unseen
        column.update({name: f"{mark.mean():.2%}" for name, mark in marks.items()})
        expected[split] = column
    expected = pd.DataFrame(expected)
    found = figures(lines)
    assert list(found) == ["train", "validation", "test"]
    pd.testing.assert_frame_equal(
        found.sort_index(), expected[list(found)].sort_index(), check_dtype=False
    )


def test_coarse_times_repeats_and_features_of_other_kinds(shop, tmp_path):
    log = shop.impressions.assign(timestamp=shop.impressions.timestamp // 86400 * 86400)
    log = pd.concat([log, log[log.split == "test"].head(7)])
    items = shop.items.assign(price=shop.items.price.where(shop.items.index % 5 > 0))
    schema = Schema(
        (
            Feature("item_id", "hash", size=50),
            Feature("hour", "integer", size=20),
            Feature("price", "float", "float32"),
            Feature("history_item_id", "sequence", shares="item_id"),
        ),
        MAX_HISTORY,
    )
    build_examples(items, log, tmp_path / "data", schema=schema, num_shards=3)
    lines, errors = validate(tmp_path / "data")
    assert errors == []
    log = log.merge(items, on="item_id")
    repeated = log.duplicated(["user_id", "item_id", "timestamp"]).sum()
    assert repeated >= 7
    line = f"impressions whose user, item and second came before: {repeated}"
    assert line in lines
    found = figures(lines)
    test = log[log.split == "test"]
    assert found.test["hour out of range"] == f"{(test.hour >= 20).mean():.2%}"
    assert found.test["price not finite"] == f"{test.price.isna().mean():.2%}"
    assert not any("unseen" in name for name in found.index)


def test_ids_that_are_text(tmp_path):
    log = pd.DataFrame(
        {
            "user_id": ["u"] * 4 + ["v"],
            "item_id": ["a", "b", "a", "c", "a"],
            "timestamp": [1, 2, 3, 4, 4],
            "label": [1, 1, 0, 1, 0],
            "split": ["train", "train", "validation", "test", "test"],
        }
    )
    items = pd.DataFrame({"item_id": ["a", "b", "c"], "image": "", "category": 1})
    build_examples(items, log, tmp_path / "data")
    lines, errors = validate(tmp_path / "data")
    assert errors == []
    found = figures(lines)
    assert found.loc["history length, median"].tolist() == ["0.5", "2", "1"]
    assert found.loc["history length, mean"].tolist() == ["0.50", "2.00", "1.00"]
    assert found.loc["item_id unseen in training"].tolist() == ["0.00%"] * 2 + [
        "50.00%"
    ]
    assert found.loc["user_id unseen in training"].tolist() == ["0.00%"] * 2 + [
        "50.00%"
    ]
    assert found.loc["without image"].tolist() == ["100.00%"] * 3


def test_rows_that_are_not_in_the_folder(shop, tmp_path):
    log = shop.impressions.copy()
    log.loc[log.index < 200, "split"] = "history"
    log.loc[[300, 301], "item_id"] = 1
    build_examples(shop.items, log, tmp_path / "data", negative_keep_rate=0.5)
    lines, errors = validate(tmp_path / "data")
    assert errors == []
    (line,) = [line for line in lines if "leak" in line]
    assert line == (
        "histories cannot be checked for leaks: 200 rows of split history are not in "
        "the folder"
    )
    (line,) = [line for line in lines if line.startswith("rows of the log")]
    assert "1500; skipped: unknown_item 2, bad_row 0" in line
    left_out = 1500 - 202 - int(figures(lines).loc["impressions"].astype(int).sum())
    assert left_out > 100
    assert f"negatives left out: {left_out} (negative_keep_rate 0.5)" in line


def test_histories_that_the_log_brought(shop, tmp_path):
    data = _copy(shop, tmp_path)
    edit_json(
        data / "summary.json", lambda content: content.update(ready_made_histories=True)
    )
    _leak(shop, data)
    lines, errors = validate(data)
    assert errors == []
    line = (
        "histories cannot be checked for leaks: the log came with ready-made histories"
    )
    assert line in lines


def test_without_times(shop, tmp_path):
    data = _copy(shop, tmp_path)
    for path in data.glob("*.tfrecord-*"):
        examples = read(path)
        for example in examples:
            del example.features.feature["timestamp"]
        write(path, examples)
    _, errors = validate(data)
    assert (
        sorted(error.split(": ", 1)[1] for error in errors)[:3]
        == ["record 1: no feature timestamp; build the examples again"] * 3
    )
    edit_json(
        data / "features.json",
        lambda content: content["featuresDict"]["features"].pop("timestamp"),
    )
    lines, errors = validate(data)
    assert errors == []
    assert lines[-1] == (
        "histories cannot be checked for leaks: the impressions have no timestamp"
    )


def test_without_a_summary(shop, tmp_path):
    data = _copy(shop, tmp_path)
    (data / "summary.json").unlink()
    lines, errors = validate(data)
    assert lines[-1] == (
        "histories cannot be checked for leaks: summary.json cannot be read"
    )
    assert len(errors) == 1 and "summary.json: cannot be read" in errors[0]


# --- Histories ----------------------------------------------------------------------


def _random_log(rng, max_history):
    """A small log and its requests, histories by brute force, ties in random order."""
    sizes = rng.integers(1, 4, int(rng.integers(5, 30)))
    requests = pd.DataFrame(
        {
            "user_id": rng.integers(0, 3, sizes.size),
            "timestamp": rng.integers(0, 8, sizes.size),
        }
    )
    log = requests.loc[np.repeat(requests.index, sizes)].rename_axis("request")
    log = log.reset_index()
    # Not all of a request need have its first second.
    later = log.request.duplicated() * rng.integers(0, 3, len(log))
    log["timestamp"] += later * rng.integers(0, 2)
    log["label"] = rng.integers(0, 2, len(log))
    log["key"] = rng.integers(-4, 4, len(log))
    # By brute force, with the clicks of a second in an order of chance.
    shuffled = log.sample(frac=1, random_state=int(rng.integers(1 << 30)))
    shuffled = pd.concat([shuffled, requests.assign(label=0)], ignore_index=True)
    requests["history"] = [
        [int(shuffled.key.iloc[row]) for row in rows]
        for rows in histories(shuffled, max_history)[len(log) :]
    ]
    return log, requests


def _compare(log, requests, max_history, several_seconds=False):
    return compare_histories(
        {
            "user": requests.user_id.to_numpy(),
            "size": log.request.value_counts().sort_index().to_numpy(),
            "timestamp": log.timestamp.to_numpy(),
            "label": log.label.to_numpy(),
            "shown": log.key.to_numpy(),
            "length": requests.history.map(len).to_numpy(),
            "history": np.array([k for h in requests.history for k in h], np.int64),
        },
        max_history,
        several_seconds,
    )


def _is_right(log, request, max_history):
    """Whether a history is one of those that ties and truncation allow."""
    clicks = log[(log.user_id == request.user_id) & (log.label == 1)]
    clicks = clicks[clicks.timestamp < request.timestamp]
    history = list(request.history)
    if len(history) != min(len(clicks), max_history):
        return False
    for _, second in sorted(clicks.groupby("timestamp"), reverse=True):
        newest = history[max(0, len(history) - len(second)) :]
        history = history[: len(history) - len(newest)]
        left = second.key.tolist()
        for key in newest:
            if key not in left:
                return False
            left.remove(key)
    return True


def _is_leak(log, request):
    clicks = log[(log.user_id == request.user_id) & (log.label == 1)]
    earlier = clicks[clicks.timestamp < request.timestamp].key.tolist()
    later = clicks[clicks.timestamp >= request.timestamp].key.tolist()
    history = request.history
    return any(history.count(k) > earlier.count(k) and k in later for k in history)


@pytest.mark.parametrize("seed", range(4))
def test_histories_against_brute_force(monkeypatch, seed):
    monkeypatch.setattr(f"{compare_histories.__module__}.SLICE_ROWS", 20)
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(10):
        max_history = int(rng.integers(1, 6))
        log, requests = _random_log(rng, max_history)
        wrong, leaks = _compare(log, requests, max_history)
        assert not wrong.any() and not leaks.any()
        for row in rng.choice(len(requests), 5):
            history = list(requests.history[row])
            change = rng.integers(4)
            if change == 0:
                rng.shuffle(history)
            elif change == 1 and history:
                history[rng.integers(len(history))] = int(rng.integers(-5, 5))
            elif change == 2:
                history = history[1:]
            else:
                history = [*history, int(rng.integers(-5, 5))][-max_history:]
            requests.at[row, "history"] = history
        wrong, leaks = _compare(log, requests, max_history)
        right = [_is_right(log, row, max_history) for row in requests.itertuples()]
        assert wrong.tolist() == np.logical_not(right).tolist()
        leaking = [_is_leak(log, row) for row in requests.itertuples()]
        assert leaks.tolist() == (np.array(leaking) & wrong).tolist()
        seen |= set(zip(wrong.tolist(), leaks.tolist(), strict=True))
    assert len(seen) == 3


def _was_right(log, request, max_history):
    """Whether a history is right for an earlier second."""
    return any(
        _is_right(log, request._replace(timestamp=time), max_history)
        for time in range(-1, request.timestamp)
    )


@pytest.mark.parametrize("seed", range(4))
def test_histories_of_requests_that_began_earlier(monkeypatch, seed):
    monkeypatch.setattr(f"{compare_histories.__module__}.SLICE_ROWS", 20)
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(15):
        max_history = int(rng.integers(1, 6))
        log, requests = _random_log(rng, max_history)
        # Those of an earlier second, which no impression of the record has.
        earlier = requests.timestamp - rng.integers(0, 9, len(requests))
        requests["history"] = [
            [int(log.key[row]) for row in rows]
            for rows in histories(
                pd.concat(
                    [log, requests.assign(label=0, timestamp=earlier)],
                    ignore_index=True,
                ),
                max_history,
            )[len(log) :]
        ]
        for row in rng.choice(len(requests), 5):
            history = list(requests.history[row])
            if history:
                history[rng.integers(len(history))] = int(rng.integers(-5, 5))
            requests.at[row, "history"] = history
        right = [_is_right(log, row, max_history) for row in requests.itertuples()]
        wrong, _ = _compare(log, requests, max_history)
        assert wrong.tolist() == np.logical_not(right).tolist()
        wrong, _ = _compare(log, requests, max_history, several_seconds=True)
        rows = zip(requests.itertuples(), right, strict=True)
        any_right = [ok or _was_right(log, row, max_history) for row, ok in rows]
        assert wrong.tolist() == np.logical_not(any_right).tolist()
        seen |= set(zip(right, any_right, strict=True))
    assert len(seen) == 3


def _leak(shop, data, columns=COLUMNS):
    """Puts an impression's own click into its history; returns file and record."""
    (path,) = DataFolder(data).files("validation")
    examples = read(path)

    def is_first_click(example):
        item, user, time = (
            values(example, name)[0] for name in ("item_id", "user_key", "timestamp")
        )
        log = shop.log[(shop.log.user_id == user) & (shop.log.label == 1)]
        before = log[log.timestamp < time]
        return values(example, "label")[0] == 1 and item not in set(before.item_id)

    number = next(i for i, example in enumerate(examples) if is_first_click(example))
    for name in columns:
        own = values(examples[number], name)[0]
        values(examples[number], f"history_{name}")[-1] = own
    write(path, examples)
    return f"{path}: record {number + 1}"


def test_a_leak(shop, tmp_path):
    data = _copy(shop, tmp_path)
    record = _leak(shop, data)
    _, errors = validate(data)
    assert errors == [
        f"{record}: a leak: its history holds a click of its earliest second or later "
        "(1 such records); build the examples again"
    ]


def test_a_leak_where_the_schema_has_no_history_of_items(shop, tmp_path):
    features = [f for f in shop.schema.features if f.name != "history_item_id"]
    schema = Schema(tuple(features), MAX_HISTORY)
    data = tmp_path / "data"
    build_examples(shop.items, shop.impressions, data, schema=schema)
    assert validate(data)[1] == []
    record = _leak(shop, data, columns=("category", "image"))
    (error,) = validate(data)[1]
    assert error.startswith(f"{record}: a leak")


@pytest.mark.parametrize("column", COLUMNS)
def test_a_history_column_out_of_order(shop, tmp_path, column):
    data = _copy(shop, tmp_path)
    (path,) = DataFolder(data).files("test")
    examples = read(path)
    history = values(examples[4], f"history_{column}")
    assert list(history) != list(history)[::-1]
    history[:] = list(history)[::-1]
    write(path, examples)
    _, errors = validate(data)
    assert errors == [
        f"{path}: record 5: its history is not its user's newest clicks before it "
        "(1 such records); build the examples again"
    ]


def test_shards_of_one_number_are_compared_with_each_other(shop, tmp_path):
    data = tmp_path / "data"
    build_examples(shop.items, shop.impressions, data, num_shards=3)
    assert validate(data)[1] == []
    train, test = DataFolder(data).files("train")[1], DataFolder(data).files("test")[1]
    examples = read(train)
    click = next(e for e in examples if values(e, "label")[0] == 1)
    values(click, "label")[0] = 0
    write(train, examples)
    _, errors = validate(data)
    files = {error.split(": ")[0] for error in errors}
    # The user's later impressions, of all splits.
    assert {train, test} <= files
    assert all("-00001-of-00003" in file for file in files)


# --- Broken folders -----------------------------------------------------------------


def _edit_record(edit):
    """A damage: `edit` applied to the features of a split's seventh record."""

    def damage(data, split):
        (path,) = DataFolder(data).files(split)
        examples = read(path)
        edit(examples[6].features.feature)
        write(path, examples)

    return damage


def _set(name, kind, values):
    """A damage: a feature of the seventh record gets other values."""
    return _edit_record(lambda f: getattr(f[name], kind).value.__setitem__(ALL, values))


ALL = slice(None)


def _move_click(data, split):
    """The images of all histories end to end stay the same."""
    (path,) = DataFolder(data).files(split)
    examples = read(path)
    click = values(examples[6], "history_image").pop()
    values(examples[7], "history_image").insert(0, click)
    write(path, examples)


def _no_example(data, split):
    (path,) = DataFolder(data).files(split)
    records = [example.SerializeToString() for example in read(path)]
    records[6] = b"\xff" * 20
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)


def _drop_record(data, split):
    (path,) = DataFolder(data).files(split)
    write(path, read(path)[:-1])


def _truncate(data, split):
    path = pathlib.Path(DataFolder(data).files(split)[0])
    path.write_bytes(path.read_bytes()[:-10])


def _flip_byte(data, split):
    path = pathlib.Path(DataFolder(data).files(split)[0])
    content = bytearray(path.read_bytes())
    start = 0
    for _ in range(6):
        start += int.from_bytes(content[start : start + 8], "little") + 16
    content[start + 40] ^= 1
    path.write_bytes(content)


RECORD_DAMAGES = {
    "label": (
        _set("label", "int64_list", [7]),
        [r"record 7: a label is 0 or 1. Received: 7 \(1 such records\)"],
    ),
    "item": (
        _set("item_id", "int64_list", [77]),
        [r"record 7: its item is not in the catalogue. Received: 77 \(1 such"],
    ),
    "missing": (_edit_record(lambda f: f.pop("hour")), ["record 7: no feature hour"]),
    "type": (
        _set("hour", "float_list", [3.0]),
        ["record 7: feature hour is of type float_list, not int64_list"],
    ),
    "type of a history": (
        _set("history_category", "int64_list", [3]),
        ["record 7: feature history_category is of type int64_list, not bytes_list"],
    ),
    "two values": (
        _set("hour", "int64_list", [3, 4]),
        ["record 7: feature hour has 2 values, not 1"],
    ),
    "unequal": (
        _move_click,
        ["record 7: histories of unequal lengths: .*'history_image': 7"],
    ),
    "no example": (_no_example, ["record 7: not a tf.train.Example"]),
    "dropped": (_drop_record, [r"\d+9 records, in dataset_info.json \d+"]),
    "truncated": (_truncate, [r"record \d+0: truncated record at \d+;"]),
    "flipped": (_flip_byte, ["record 7: corrupted record"]),
}


@pytest.mark.parametrize("turn", range(4))
def test_broken_records(monkeypatch, shop, tmp_path, turn):
    monkeypatch.setattr(f"{read_shard.__module__}.BATCH_SIZE", 4)
    data = _copy(shop, tmp_path)
    names = list(RECORD_DAMAGES)[3 * turn : 3 * turn + 3]
    messages = []
    for name, split in zip(names, ("train", "validation", "test"), strict=False):
        damage, expected = RECORD_DAMAGES[name]
        damage(data, split)
        messages += [f"{DataFolder(data).files(split)[0]}: {text}" for text in expected]
        if name not in ("label", "item"):
            messages.append(f"summary.json: split {split} has .* but .* could be read")
    check_errors(data, messages)


def _set_json(name, *keys, **changes):
    """A damage: changes of a JSON file's part."""

    def damage(data):
        def edit(content):
            for key in keys:
                content = content[key]
            content.update(changes)

        edit_json(data / name, edit)

    return damage


def _set_file(name, content):
    return lambda data: (data / name).write_bytes(content)


def _edit_table(name, edit):
    def damage(data):
        edit(pd.read_parquet(data / name)).to_parquet(data / name, index=False)

    return damage


def _rename_train(data):
    path = pathlib.Path(DataFolder(data).files("train")[0])
    path.rename(path.with_name("impressions-train.tfrecord-00000-of-00002"))


def _empty_train(data):
    pathlib.Path(DataFolder(data).files("train")[0]).write_bytes(b"")

    def edit(content):
        for split in content["splits"]:
            if split["name"] == "train":
                split["shardLengths"] = ["0"]

    edit_json(data / "dataset_info.json", edit)


@pytest.mark.parametrize(
    ("damages", "messages"),
    [
        (
            [_rename_train],
            [
                "00000-of-00001: no such file, but it is in dataset_info.json",
                "00000-of-00002: not in dataset_info.json",
                "split train is empty",
                "split train has 1050 impressions in 1050 requests, but 0 in 0 could",
            ],
        ),
        (
            [_empty_train, lambda data: (data / "summary.json").unlink()],
            ["summary.json: cannot be read", "split train is empty"],
        ),
        (
            [_set_json("summary.json", "splits", test=301)],
            ["split test has 301 impressions in 300 requests, but 300 in 300 could"],
        ),
        (
            [
                _set_json("summary.json", "requests", test=301, validation=7),
                _set_json("summary.json", weighted=True),
            ],
            [
                "split test has 300 impressions in 301 requests, but 300 in 300 could",
                "split validation has 150 impressions in 7 requests, but 150 in 150",
                "summary.json: weighted is True, and .*features.json says otherwise",
            ],
        ),
        (
            [
                _set_file("summary.json", b'{"rows": 2}'),
                _set_file("features.json", b""),
            ],
            ["summary.json: .*skipped", "features.json: cannot be read"],
        ),
        (
            [_set_file("dataset_info.json", b"[]")],
            [
                "dataset_info.json: cannot be read",
                "split train is empty",
                *(
                    f"{name}.*not in dataset_info"
                    for name in ("train", "valid", "test")
                ),
                *(f"split {name} has" for name in ("train", "validation", "test")),
            ],
        ),
        (
            [_set_json("schema.json", max_history=7)],
            [
                f"{split}.tfrecord.*: record .*longer than max_history=7. Received: 8 "
                for split in ("train", "validation", "test")
            ],
        ),
        ([_set_file("schema.json", b"{")], ["schema.json: not a feature schema"]),
        (
            [_set_json("schema.json", "features", 1, size=45)],
            ["item_id.parquet: 44 values, in schema.json 45"],
        ),
        (
            [lambda data: (data / "vocabularies" / "hour.parquet").unlink()],
            ["hour.parquet: not a vocabulary"],
        ),
        (
            [
                _edit_table("vocabularies/hour.parquet", lambda table: table[::-1]),
                _edit_table(
                    "catalogue.parquet",
                    lambda table: pd.concat([table, table.iloc[[4]]]),
                ),
            ],
            [
                "hour.parquet: keys out of order",
                "catalogue.parquet: column item_id, row 61: a repeated id",
            ],
        ),
        (
            [
                _edit_table(
                    "catalogue.parquet",
                    lambda table: table.assign(image_key=table.image_key + 1),
                )
            ],
            ["catalogue.parquet: not a catalogue .*image_key"],
        ),
        (
            [_edit_table("catalogue.parquet", lambda t: t.drop(columns="item_id"))],
            ["catalogue.parquet: not a catalogue .*item_id"],
        ),
    ],
)
def test_a_broken_folder(shop, tmp_path, damages, messages):
    data = _copy(shop, tmp_path)
    for damage in damages:
        damage(data)
    check_errors(data, messages)


def test_a_feature_that_the_examples_do_not_have(shop, tmp_path):
    data = _copy(shop, tmp_path)
    feature = {"name": "colour", "kind": "hash", "size": 5}
    edit_json(data / "schema.json", lambda content: content["features"].append(feature))
    _, errors = validate(data)
    found = [error for error in errors if "record 1: no feature colour" in error]
    assert len(found) == 3


def test_broken_feature_maps(shop, tmp_path):
    maps = pathlib.Path(shutil.copytree(shop.maps, tmp_path / "maps"))
    images = pd.read_parquet(maps / "images.parquet")
    images.head(28).to_parquet(maps / "images.parquet", index=False)
    _, (error,) = validate(shop.data, maps)
    assert error.startswith(f"{maps}: feature maps of 28 of the catalogue's 58 images")
    (path,) = maps.glob("feature_maps-*.f16")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    _, (error,) = validate(shop.data, maps)
    assert path.name in error and "checksum" in error
    (maps / "feature_maps.json").unlink()
    _, (error,) = validate(shop.data, maps)
    assert "feature_maps.json: no such file" in error


def test_folders_that_do_not_exist(shop, tmp_path):
    with pytest.raises(InputError, match="^data_dir=.*no such folder"):
        validate(tmp_path / "none")
    with pytest.raises(InputError, match="^feature_maps=.*no such folder"):
        validate(shop.data, tmp_path / "none")


def test_command_line(shop, tmp_path):
    data = _copy(shop, tmp_path)
    record = _leak(shop, data)
    root = pathlib.Path(__file__).parents[3]
    command = ("-m", "tfrecords_tools.validate")
    good, bad = (
        processes.run([*command, f"--data_dir={path}"], cwd=root)
        for path in (shop.data, data)
    )
    assert (good.returncode, bad.returncode) == (0, 1)
    assert good.stdout.splitlines()[-1] == "valid" and "error: " not in good.stderr
    assert "valid" not in bad.stdout.splitlines()
    assert f"error: {record}: a leak" in bad.stderr
