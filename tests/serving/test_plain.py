"""Requests from plain values against those of the records in DATA."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from hccm_tf.errors import InputError
from hccm_tf.serving.plain import plain_request
from hccm_tf.serving.request import Impressions, rank_request


@pytest.fixture(scope="module")
def rows(shop):
    """Some impressions of different users, with their clicks as DATA has them."""
    return Impressions(shop.data, "test", 9).rows


def _plain(row):
    return {
        "user_id": row["user_id"][0],
        "hour": row["hour"][0],
        "candidates": row["item_id"],
        "history": row["history_item_id"],
    }


def _same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def _unmarked(schema):
    """The schema of a model whose requests carry the items' columns."""
    features = tuple(dataclasses.replace(f, item=False) for f in schema.features)
    return dataclasses.replace(schema, features=features)


def test_of_what_an_export_knows_only_ids_are_told(shop, rows):
    expected = rank_request([[row] for row in rows], shop.schema, with_images=True)
    images = shop.items[["item_id", "image"]]
    found = plain_request([_plain(row) for row in rows], shop.schema, images)
    _same(found, expected)
    assert "category" not in found


@pytest.mark.parametrize("with_images", [False, True])
def test_ids_are_looked_up(shop, rows, with_images):
    items = pd.read_csv(shop.path / "shop" / "items.csv")
    schema = _unmarked(shop.schema)
    expected = rank_request([[row] for row in rows], schema, with_images)
    plain = [_plain(row) for row in rows]
    for table in (items, items.set_index("item_id")):
        _same(plain_request(plain, schema, table, with_images), expected)
    # What is told goes before the catalogue; nothing is looked up that is told whole.
    whole = items.set_index("item_id").to_dict("index")
    for request in plain:
        for name in ("candidates", "history"):
            request[name] = [{"item_id": i, **whole[i]} for i in request[name]]
    _same(plain_request(plain, schema, items.iloc[:0], with_images), expected)
    plain[0]["candidates"] = [{**plain[0]["candidates"][0], "category": "other"}]
    found = plain_request(plain[:1], schema, items, with_images)
    assert found["category"].tolist() == [[b"other"]]


def test_a_clicked_item_may_be_gone(shop, rows):
    request = _plain(rows[-1]) | {"history": [-5, rows[-1]["item_id"][0]]}
    found = plain_request([request], shop.schema, shop.items)
    assert found["history_item_id"].tolist() == [request["history"]]
    assert found["history_image"][0, 0] == b"" != found["history_image"][0, 1]


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA])
def test_what_is_missing_is_said_as_in_the_log(shop, rows, missing):
    item = {"item_id": rows[0]["item_id"][0], "image": missing}
    request = _plain(rows[0]) | {"hour": missing, "candidates": [item]}
    found = plain_request([request], shop.schema, shop.items)
    assert found["hour"].tolist() == [np.iinfo(np.int64).min]
    assert found["image"].tolist() == [[b""]]


def test_clicks_are_the_history_of_requests_without(shop, rows):
    log, row = shop.impressions, rows[-1]
    before = log[(log.label == 1) & (log.timestamp < row["timestamp"][0])]
    request = _plain(row)
    del request["history"]
    shuffled = before.sample(frac=1, random_state=0)
    found = plain_request([request], shop.schema, shop.items, clicks=shuffled)
    _same(found, rank_request([[row]], shop.schema, with_images=True))
    assert found["history_length"][0] > 0
    shown = log[log.timestamp < row["timestamp"][0]]
    of_log = plain_request([request], shop.schema, shop.items, clicks=shown)
    np.testing.assert_array_equal(of_log["history_item_id"], found["history_item_id"])
    alone = plain_request([request], shop.schema, shop.items)
    assert alone["history_length"].tolist() == [0]


def test_an_id_may_be_its_digits(shop, rows):
    clicks = shop.impressions[shop.impressions.label == 1]
    request = _plain(rows[-1])
    assert request["history"]

    def as_text(request):
        texts = {n: list(map(str, request[n])) for n in ("candidates", "history")}
        return {**request, **texts, "user_id": str(request["user_id"])}

    told = {n: value for n, value in request.items() if n != "history"}
    texts = {n: value for n, value in as_text(request).items() if n != "history"}
    of_object = shop.items.astype({"item_id": object})
    tables = shop.items, shop.items.astype({"item_id": str}), of_object
    for number, text, log in ((request, as_text(request), None), (told, texts, clicks)):
        expected = plain_request([number], shop.schema, shop.items, clicks=log)
        assert expected["history_length"][0] > 0
        for table in tables:
            for one in (number, text):
                found = plain_request([one], shop.schema, table, clicks=log)
                _same(found, expected)


def test_ids_below_zero_and_in_columns_with_gaps(shop, rows):
    request = _plain(rows[-1])
    del request["history"]
    item = request["candidates"][0]
    for users, asked in (([-7, 5], "-7"), ([7, None], "7"), ([None, "7"], 7)):
        clicks = pd.DataFrame({"user_id": users, "item_id": item, "timestamp": 1})
        told = {**request, "user_id": asked}
        found = plain_request([told], shop.schema, shop.items, clicks=clicks)
        assert found["history_length"].tolist() == [1], users


def test_tables_that_cannot_be_looked_up_are_named(shop, rows):
    twice, request = pd.concat([shop.items, shop.items[:1]]), _plain(rows[0])
    log = shop.impressions.drop(columns="timestamp")
    for arguments, says in (
        ((request, shop.schema, shop.items), "requests: a list of dicts"),
        (([request], shop.schema, twice), f"item {shop.items.item_id[0]} is in"),
        (
            ([request], shop.schema, shop.items, True, log),
            "clicks: no column timestamp",
        ),
    ):
        with pytest.raises(InputError, match=says):
            plain_request(*arguments)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"candidates": []}, "number 1, from 0, has no candidate"),
        ({"candidates": [-5]}, "number 1, from 0: item -5 is not in the catalogue"),
        ({"candidates": [{"item_id": -5}]}, "no category, which the model takes"),
        ({"hour": "noon"}, "hour: int64 is what the model takes. Received: 'noon'"),
        ({"histroy": [1]}, "number 1, from 0: histroy: nothing of a request"),
        ({"hour": None}, None),
    ],
)
def test_what_is_missing_is_named(shop, rows, changes, says):
    requests = [_plain(rows[0]), {**_plain(rows[1]), **changes}]
    if says is None:
        found = plain_request(requests, _unmarked(shop.schema), shop.items)
        assert found["hour"][1] == np.iinfo(np.int64).min
        return
    with pytest.raises(InputError) as error:
        plain_request(requests, _unmarked(shop.schema), shop.items)
    assert says in str(error.value) and "\n" not in str(error.value)
