"""Serialized requests against `rank` and against their impressions one by one."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError

from hccm_tf.serving.checks import require_examples
from hccm_tf.serving.request import Impressions, impressions_request, rank_request
from tests.serving.asking import ask, cut, one_row_each, record_of

SIZES = (5, 1, 4, 2)
MASK = np.arange(5) < np.array(SIZES)[:, None]


def _without_history(example):
    example = tf.train.Example.FromString(example)
    for name, feature in example.features.feature.items():
        if name.startswith("history_"):
            feature.Clear()
    return example.SerializeToString()


@pytest.fixture
def requests(served, shop):
    """Lists of rows and records of `SIZES`, of which the third has no history."""
    impressions = served[2]
    rows = cut(impressions.rows, SIZES)
    clicks = {name: [] for name in rows[2][0] if name.startswith("history_")}
    rows[2] = [row | clicks for row in rows[2]]
    examples = cut(impressions.examples, SIZES)
    examples[2] = [_without_history(example) for example in examples[2]]
    return rows, [record_of(request, shop.schema) for request in examples]


def _rank(signatures, records):
    return ask(signatures["rank_examples"], {"examples": np.array(records, object)})


def test_equals_rank_and_one_row_for_each_candidate(served, shop, requests):
    _, signatures, _, with_images = served
    rows, records = requests
    found = _rank(signatures, records)["ctr"]
    plain = one_row_each(rows, shop.schema, with_images)
    assert (plain["history_length"] == 0).sum() == 4
    expected = ask(signatures["serving_default"], plain)["ctr"]
    assert expected.std() > 1e-4
    np.testing.assert_allclose(found[MASK], expected, atol=1e-6)
    assert found.shape == MASK.shape and (found[~MASK] == 0).all()
    ranked = ask(signatures["rank"], rank_request(rows, shop.schema, with_images))
    np.testing.assert_allclose(found, ranked["ctr"], atol=1e-6)


def test_each_request_alone(served, requests):
    signatures, records = served[1], requests[1]
    together = _rank(signatures, records)["ctr"]
    for row, (record, size) in enumerate(zip(records, SIZES, strict=True)):
        alone = _rank(signatures, [record])["ctr"]
        assert alone.shape == (1, size)
        np.testing.assert_allclose(alone[0], together[row, :size], atol=1e-6)


def test_records_of_a_data_folder(served, shop, requests_of_many):
    """As `build_examples` groups them, and as the estimator predicts them."""
    estimator, signatures, _, with_images = served
    impressions = Impressions(requests_of_many, "test", 60)
    requests = impressions.requests
    sizes = np.array([len(rows) for rows in requests])
    assert {1, 7} <= set(sizes)
    mask = np.arange(max(sizes)) < sizes[:, None]
    found = _rank(signatures, impressions.records)["ctr"]
    expected = estimator.predict_proba(requests_of_many)[: sum(sizes), 1]
    assert expected.std() > 1e-3 and (found[~mask] == 0).all()
    np.testing.assert_allclose(found[mask], expected, atol=1e-5)
    rows = [row for request in requests for row in request]
    plain = impressions_request(rows, shop.schema, with_images)
    expected = ask(signatures["serving_default"], plain)["ctr"]
    np.testing.assert_allclose(found[mask], expected, atol=1e-6)
    ranked = ask(signatures["rank"], rank_request(requests, shop.schema, with_images))
    np.testing.assert_allclose(found, ranked["ctr"], atol=1e-6)
    examples = np.array(impressions.examples, object)
    single = ask(signatures["serve_examples"], {"examples": examples})["ctr"]
    np.testing.assert_allclose(found[mask][:60], single, atol=1e-6)


def test_no_request_and_no_candidate(served, shop, requests):
    signatures, records = served[1], requests[1]
    assert _rank(signatures, [])["ctr"].shape == (0, 0)
    request = tf.train.Example.FromString(records[0])
    for feature in shop.schema.scalars:
        if feature.candidate:
            request.features.feature[feature.name].Clear()
    request.features.feature["image"].Clear()
    none = request.SerializeToString()
    assert _rank(signatures, [none])["ctr"].shape == (1, 0)
    found = _rank(signatures, [none, *records])["ctr"]
    np.testing.assert_allclose(found[1:], _rank(signatures, records)["ctr"], atol=1e-6)
    assert (found[0] == 0).all()


def test_what_only_a_log_knows_is_not_asked_for(served, requests):
    signatures, records = served[1], requests[1]
    less = []
    for record in records:
        request = tf.train.Example.FromString(record)
        for name in ("label", "row", "timestamp", "user_key"):
            request.features.feature.pop(name, None)
        less.append(request.SerializeToString())
    found = _rank(signatures, less)["ctr"]
    np.testing.assert_array_equal(found, _rank(signatures, records)["ctr"])


def _bad_records(record):
    """Requests that do not fit, with the columns that the error names."""
    for name in ("item_id", "price"):
        request = tf.train.Example.FromString(record)
        feature = request.features.feature[name]
        del (feature.float_list if name == "price" else feature.int64_list).value[0]
        yield request, f"{name}.*need equal numbers of candidates"
    request = tf.train.Example.FromString(record)
    request.features.feature["user_id"].int64_list.value.append(3)
    yield request, "user_id"
    request = tf.train.Example.FromString(record)
    del request.features.feature["history_category"].bytes_list.value[0]
    yield request, "history_category.*need equal lengths"


def test_requests_that_do_not_fit_name_the_column(served, requests):
    signatures, records = served[1], requests[1]
    for bad, message in _bad_records(records[0]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            _rank(signatures, [bad.SerializeToString(), *records[1:]])


def test_serve_examples_takes_one_candidate_each(served, requests):
    signatures, records = served[1], requests[1]
    for name, given_as in (("serve_examples", "examples"), ("regress", "inputs")):
        many = {given_as: np.array(records[:1], object)}
        with pytest.raises(tf.errors.InvalidArgumentError, match="Key: "):
            ask(signatures[name], many)


def _claiming(length):
    """A record with a byte string of 3 bytes that claims another length."""
    claim = bytes((length >> 7 * place & 127) | 128 * (place < 4) for place in range(5))
    message = b"\x0a" + claim + b"abc"
    for before in (b"\x0a", b"\x0a\x01a\x12", b"\x0a", b"\x0a"):
        message = before + bytes([len(message)]) + message
    return message


# From 2 GB on, TensorFlow's parser ends the process.
@pytest.mark.parametrize("length", [4, 50, 2**31, 2**32 - 1])
def test_what_is_an_example(length):
    whole = [b"", _claiming(3)]
    assert require_examples(np.array([], object)).shape == (0,)
    assert tf.train.Example.FromString(whole[1]).features.feature["a"]
    assert require_examples(whole).numpy().tolist() == whole
    with pytest.raises(DecodeError):
        tf.train.Example.FromString(_claiming(length))
    with pytest.raises(tf.errors.DataLossError):
        require_examples([*whole, _claiming(length)])


def test_a_record_that_is_no_example_is_not_parsed(served):
    """The parser would say something else of this one."""
    signatures = served[1]
    record = np.array([_claiming(50)], object)
    for name in ("rank_examples", "serve_examples", "regress"):
        (given_as,) = signatures[name].structured_input_signature[1]
        with pytest.raises(tf.errors.DataLossError):
            ask(signatures[name], {given_as: record})
