"""What is checked of records with several candidates."""

import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest

from hccm_tf.data.folder import DataFolder
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.validation.records import read_shard
from hccm_tf.preparation.validation.validate import validate
from tests.preparation.request_logs import MAX_HISTORY, MOMENT, make_requests
from tests.preparation.validation.folders import (
    check_errors,
    edit_json,
    figures,
    read,
    values,
    write,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Path of a data folder of requests, and their catalogue and log."""
    items, log = make_requests()
    data = tmp_path_factory.mktemp("requests") / "data"
    build_examples(items, log.drop(columns="history"), data, max_history=MAX_HISTORY)
    return data, items, log


@pytest.fixture
def data(built, tmp_path):
    """Path of a copy of the data folder."""
    return pathlib.Path(shutil.copytree(built[0], tmp_path / "data"))


def test_the_figures_count_impressions(built):
    data, items, log = built
    lines, errors = validate(data)
    assert errors == []
    assert "histories were compared with the clicks of undamaged shards" in lines
    log = log.merge(items, on="item_id", how="left")
    train = log[log.split == "train"]
    found = figures(lines)
    most = DataFolder(data).max_candidates
    for split, rows in log.groupby("split"):
        sizes = rows.groupby(MOMENT).size()
        requests = sum(-(-size // most) for size in sizes)
        assert requests < len(rows)
        length = rows.history.map(len)
        expected = {
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
        }
        # Those of the user, of the moment and of the candidate.
        for name in ("user_id", "hour", "position", "item_id"):
            marks[f"{name} unseen in training"] = ~rows[name].isin(train[name])
        expected |= {name: f"{mark.mean():.2%}" for name, mark in marks.items()}
        assert found[split][list(expected)].to_dict() == expected
    line = "impressions whose user, item and second came before: 0"
    assert line in lines


def _longest(examples):
    """Number of the first record with three candidates or more."""
    return next(
        number
        for number, example in enumerate(examples)
        if len(values(example, "label")) >= 3
    )


def _change(edit):
    """A damage: `edit` applied to a request's features; returns file and record."""

    def damage(data, split):
        (path,) = DataFolder(data).files(split)
        examples = read(path)
        number = _longest(examples)
        edit(examples[number].features.feature)
        write(path, examples)
        return f"{path}: record {number + 1}"

    return damage


CANDIDATES = ("label", "row", "image", "timestamp", "weight", "item_id", "category")
CANDIDATES = (*CANDIDATES, "price", "position")


def _lists(features):
    for name in CANDIDATES:
        kind = features[name].WhichOneof("kind")
        yield getattr(features[name], kind).value


def _no_candidates(features):
    for found in _lists(features):
        del found[:]


AGAIN = "; build the examples again"
DAMAGES = {
    "fewer labels": (
        lambda f: f["label"].int64_list.value.pop(),
        r"candidates of unequal lengths: .*'label': \d.*'row': \d.*'position': \d",
    ),
    "fewer positions": (
        lambda f: f["position"].int64_list.value.pop(),
        "candidates of unequal lengths: ",
    ),
    "none": (_no_candidates, "a request without candidates"),
    "no row": (lambda f: f.pop("row"), "no feature row"),
    "no position": (lambda f: f.pop("position"), "no feature position"),
    "many hours": (
        lambda f: f["hour"].int64_list.value.append(3),
        "feature hour has 2 values, not 1",
    ),
    "label": (
        lambda f: f["label"].int64_list.value.__setitem__(2, 5),
        r"a label is 0 or 1. Received: 5 \(1 such records\)",
    ),
    "weight": (
        lambda f: f["weight"].float_list.value.__setitem__(slice(1, 3), [-0.5, np.nan]),
        r"a weight is finite, 0 or more. Received: -0.5 \(1 such records\)",
    ),
    "item": (
        lambda f: f["item_id"].int64_list.value.__setitem__(1, 77),
        r"its item is not in the catalogue. Received: 77 \(1 such records\)",
    ),
    "row": (
        lambda f: f["row"].int64_list.value.__setitem__(1, 2_000),
        r"the log has the rows 0 to 1049. Received: 2000 \(1 such records\)",
    ),
    "row twice": (
        lambda f: f["row"].int64_list.value.__setitem__(
            2, f["row"].int64_list.value[0]
        ),
        r"a row of the log that is in another place too \(1 such records\)",
    ),
}
# What the record is not parsed for, so that the rest of the file cannot be counted.
UNREAD = list(DAMAGES)[:6]


@pytest.mark.parametrize("turn", range(4))
def test_a_broken_request(monkeypatch, data, turn):
    monkeypatch.setattr(f"{read_shard.__module__}.BATCH_SIZE", 4)
    messages = []
    names = list(DAMAGES)[3 * turn : 3 * turn + 3]
    for name, split in zip(names, ("train", "validation", "test"), strict=False):
        edit, text = DAMAGES[name]
        messages.append(f"^{_change(edit)(data, split)}: {text}.*{AGAIN}$")
        if name in UNREAD:
            messages.append(f"summary.json: split {split} has .* but .* could be read")
    check_errors(data, messages)


def test_more_candidates_than_there_may_be(data):
    most = DataFolder(data).max_candidates
    edit_json(data / "summary.json", lambda found: found.update(max_candidates=2))
    _, errors = validate(data)
    assert len(errors) == 3
    for error, split in zip(errors, ("train", "validation", "test"), strict=True):
        (path,) = DataFolder(data).files(split)
        sizes = np.array([len(values(e, "label")) for e in read(path)])
        assert sizes.max() == most
        first = np.argmax(sizes > 2)
        assert error == (
            f"{path}: record {first + 1}: it has more candidates than max_candidates=2 "
            f"of summary.json. Received: {sizes[first]} "
            f"({(sizes > 2).sum()} such records); build the examples again"
        )


def _hold_own_click(examples):
    """Puts a click of a request into its own history; returns its number.

    It is none of an item that the history holds, and not the only candidate.
    """
    for number, example in enumerate(examples):
        history = set(values(example, "history_item_id"))
        pairs = zip(values(example, "label"), values(example, "item_id"), strict=True)
        clicked = [label == 1 and item not in history for label, item in pairs]
        if history and len(clicked) > 1 and any(clicked):
            place = clicked.index(True)
            for name in ("item_id", "category", "image"):
                own = values(example, name)[place]
                values(example, f"history_{name}")[-1] = own
            return number
    raise AssertionError("no such request")


def test_a_click_of_the_request_itself_is_a_leak(data):
    (path,) = DataFolder(data).files("test")
    examples = read(path)
    number = _hold_own_click(examples)
    write(path, examples)
    (error,) = validate(data)[1]
    assert error == (
        f"{path}: record {number + 1}: a leak: its history holds a click of its "
        f"earliest second or later (1 such records){AGAIN}"
    )


@pytest.mark.parametrize("negative_keep_rate", [1.0, 0.3])
def test_requests_of_several_seconds(built, tmp_path, negative_keep_rate):
    """A record need not hold its request's first impression, which ends the history."""
    _, items, log = built
    rng = np.random.default_rng(2)
    log = log.drop(columns=["history", "weight"])
    # A user's requests overlap, and some are far longer than the rest.
    log["request_id"] = log.groupby(MOMENT).ngroup()
    log["timestamp"] = log.request_id * 5 + rng.integers(0, 200, len(log))
    train = log[log.split == "train"]
    longest = train.groupby("user_id").request_id.transform("min")
    log.loc[train.index[:400], "request_id"] = longest[:400]
    data = tmp_path / "data"
    build_examples(
        items,
        log,
        data,
        max_history=MAX_HISTORY,
        num_shards=2,
        negative_keep_rate=negative_keep_rate,
    )
    edit_json(data / "summary.json", lambda found: found.update(request_ids=False))
    _, errors = validate(data)
    assert errors and all("is not its user's newest clicks" in e for e in errors)
    edit_json(data / "summary.json", lambda found: found.update(request_ids=True))
    lines, errors = validate(data)
    assert errors == []
    assert "histories were compared with the clicks of undamaged shards" in lines
    path = DataFolder(data).files("train")[0]
    examples = read(path)
    number = _hold_own_click(examples)
    write(path, examples)
    (error,) = validate(data)[1]
    assert error.startswith(f"{path}: record {number + 1}: ")


def test_requests_and_one_impression_each_have_the_same_figures(built, tmp_path):
    """But for the number of requests, and the history of a later second."""
    data, items, log = built
    log = log.drop(columns=["history"]).assign(request_id=np.arange(len(log)))
    build_examples(items, log, tmp_path / "flat", max_history=MAX_HISTORY)
    found, flat = (figures(validate(path)[0]) for path in (data, tmp_path / "flat"))
    assert (flat.loc["requests"] == flat.loc["impressions"]).all()
    assert (flat.loc["candidates a request, mean"] == "1.00").all()
    differ = ["requests", "candidates a request, mean"]
    pd.testing.assert_frame_equal(found.drop(index=differ), flat.drop(index=differ))
