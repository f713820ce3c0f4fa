"""Clients against servers that are slow, lie, or are others than they were."""

import gzip
import json
import time

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, regression_pb2

from hccm_tf.errors import InputError
from hccm_tf.serving import rest_client
from hccm_tf.serving.answers import MAX_BYTES, AnswerError
from hccm_tf.serving.client import ATTEMPTS, Client, GrpcClient
from hccm_tf.serving.request import rank_request
from hccm_tf.serving.rest_client import RestClient
from tests.serving.bad_servers import grpc_server, http_server, reply

REQUEST = {"examples": np.array([b"", b""], object)}
METADATA = {
    name: {"outputs": {"ctr": {"dtype": "DT_FLOAT"}}}
    for name in ("serve_examples", "rank")
}
METADATA = {"metadata": {"signature_def": {"signature_def": METADATA}}}
METADATA = reply(json.dumps(METADATA).encode())
GOOD = reply(b'{"outputs": [0.25, 0.5]}')
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
# Seconds: far more than a call's timeout, far less than what a server asks for.
LONG = 20


def _ask(address, **options):
    with RestClient(address, "hccm", **{"timeout": LONG, **options}) as client:
        return client.predict("serve_examples", REQUEST)["ctr"]


def test_a_good_server():
    """That those below fail is due to what they say; one connection is enough."""
    with http_server(METADATA, GOOD) as (address, received):
        np.testing.assert_array_equal(_ask(address), np.float32([0.25, 0.5]))
    assert [request.split()[0] for request in received] == [b"GET", b"POST"]


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"", b"HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: 1\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
        (CHUNKED + b"\r\n", b"0"),
        (CHUNKED + b"\r\n1\r\n1\r\n0\r\n", b"X-Trailer: 1\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["status", "header", "no_length", "body", "chunk", "trailer", "continue"],
)
def test_a_dripped_answer_ends_with_the_timeout(start, drip, proxied, monkeypatch):
    with http_server(METADATA, start, drip=drip) as (address, _):
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", address)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            address = "http://serving.invalid:8501"
        with pytest.raises(requests.Timeout):
            _ask(address, timeout=0.3)


@pytest.mark.parametrize("body", [b"", b"later"])
def test_one_deadline_for_all_attempts(body, monkeypatch):
    busy = reply(body, "Retry-After: 3600", status="503 Service Unavailable")
    start = time.monotonic()
    with http_server(METADATA, busy) as (address, received):
        with pytest.raises(requests.HTTPError, match="answers 503") as error:
            _ask(address)
        assert error.value.response.status_code == 503
    assert len(received) == 1 + ATTEMPTS
    # No attempt that would begin too late.
    monkeypatch.setattr(rest_client, "FIRST_WAIT", 2 * LONG)
    with http_server(METADATA, busy) as (address, received):
        with pytest.raises(requests.HTTPError, match="answers 503"):
            _ask(address)
    assert len(received) == 2
    assert time.monotonic() - start < LONG


def test_a_server_that_is_not_there_is_asked_again(monkeypatch):
    with http_server(GOOD) as (address, _):
        pass
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(requests.ConnectionError):
        _ask(address)
    assert len(waited) == ATTEMPTS - 1 and sum(waited) < 1


@pytest.mark.parametrize("status", ["301 Moved", "307 Temporary", "308 Permanent"])
def test_no_redirect_is_followed(status):
    with http_server(METADATA) as (other, asked):
        for place in (0, 1):
            elsewhere = reply(b"", f"Location: {other}/x", status=status)
            answers = [METADATA, elsewhere][1 - place :]
            with http_server(*answers) as (address, received):
                with pytest.raises(requests.HTTPError, match=f"answers {status[:3]}"):
                    _ask(address)
            assert len(received) == place + 1
        long = reply(bytes(MAX_BYTES + 1), f"Location: {other}/x", status=status)
        with http_server(METADATA, long) as (address, _):
            with pytest.raises(AnswerError, match="more than 32 MB"):
                _ask(address)
    assert not asked


def test_no_more_is_taken_than_the_limit():
    bomb = gzip.compress(bytes(MAX_BYTES + 1), 1)
    zipped = reply(bomb, "Content-Encoding: gzip")
    with http_server(METADATA, zipped) as (address, received):
        with pytest.raises(AnswerError, match="not JSON"):
            _ask(address)
    assert all(b"accept-encoding: identity" in r.lower() for r in received)
    with http_server(METADATA, reply(bytes(MAX_BYTES + 1))) as (address, _):
        with pytest.raises(AnswerError, match="32 MB; ask for fewer rows.*batch_size"):
            _ask(address)
    long = reply(b"x" * (1 << 20), status="500 Error")
    with http_server(METADATA, long) as (address, _):
        with pytest.raises(requests.HTTPError, match="answers 500") as error:
            _ask(address)
    assert len(str(error.value)) < 2000


def test_names_stay_in_their_place():
    with http_server(*2 * [METADATA, GOOD]) as (address, received):
        for label in ("stable", "ü/../a?b#c:predict"):
            client = RestClient(address, "a/../..//b c", LONG, label=label)
            with client:
                client.predict("serve_examples", REQUEST)
    paths = [request.split()[1].decode() for request in received]
    model = "/v1/models/a%2F..%2F..%2F%2Fb%20c"
    label = "%C3%BC%2F..%2Fa%3Fb%23c%3Apredict"
    assert paths == [
        f"{model}/labels/{name}{end}"
        for name in ("stable", label)
        for end in ("/metadata", ":predict")
    ]
    for name in ("", ".", ".."):
        with pytest.raises(InputError, match="^model: a name. Received: '"):
            RestClient(address, name)
        with pytest.raises(InputError, match="^label: a name. Received: '"):
            RestClient(address, "hccm", label=name)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe\xff",
        b"[]",
        b"{}",
        b"[" * 200_000,
        b'{"outputs": {}}',
        b'{"outputs": "text"}',
        b'{"outputs": null}',
        b'{"outputs": [0.5]}',
        b'{"outputs": [0.5, NaN]}',
        b'{"outputs": [0.5, null]}',
        b'{"outputs": [0.5, 1e999]}',
        b'{"outputs": [0.5, [0.5]]}',
        b'{"outputs": [[0.5], [0.5]]}',
        b'{"outputs": {"other": [0.5, 0.5]}}',
        b'{"outputs": {"ctr": [0.5, 0.5, 0.5]}}',
    ],
)
def test_json_that_is_no_answer(body):
    with http_server(METADATA, reply(body)) as (address, _):
        with pytest.raises(AnswerError):
            _ask(address)
    with http_server(reply(body)) as (address, _):
        with pytest.raises(AnswerError, match="metadata|JSON"):
            _ask(address)


class _Saying(Client):
    """Answers with what it is told."""

    def __init__(self, outputs):
        super().__init__(1.0, None, None)
        self.outputs = outputs

    def close(self):
        pass

    def _predict(self, signature_name, inputs):
        return self.outputs


@pytest.mark.parametrize(
    ("signature", "output", "message"),
    [
        ("serve_examples", None, "no outputs"),
        ("serve_examples", np.float32([0.5]), "2 rows"),
        ("serve_examples", np.float32([0.5, np.nan]), "not finite"),
        ("serve_examples", np.float32([[0.5], [0.5]]), "1 axes"),
        ("serve_examples", np.float32(0.5), "1 axes"),
        ("serve_examples", np.array([b"a", b"b"], object), "no number"),
        ("rank", np.full((2, 3), 0.5), "at least 4 columns"),
        ("rank", np.full((3, 4), 0.5), "2 rows"),
        ("rank", np.full(2, 0.5), "2 axes"),
        ("explain", np.full(2, 0.5), "2 axes"),
        ("rank_examples", np.full((2, 9), np.inf), "not finite"),
        ("image_keys", np.zeros(3, np.int64), "2 rows"),
    ],
)
def test_an_answer_to_another_request(signature, output, message):
    request = {
        "rank": {"candidate_mask": np.ones((2, 4), bool)},
        "explain": {"history_length": np.array([1, 2])},
    }.get(signature, REQUEST)
    client = _Saying({} if output is None else {"ctr": output})
    with pytest.raises(AnswerError, match=message):
        client.predict(signature, request)


def _claiming(*sizes, **values):
    tensor = {"dtype": tf.float32.as_datatype_enum, **values}
    answer = predict_pb2.PredictResponse()
    answer.outputs["ctr"].MergeFrom(tf.make_tensor_proto(0.5).__class__(**tensor))
    for size in sizes:
        answer.outputs["ctr"].tensor_shape.dim.add(size=size)
    return answer


@pytest.mark.parametrize(
    "answer",
    [
        _claiming(2**31, float_val=[0.5]),
        _claiming(2**62, 4, float_val=[0.5]),
        _claiming(-2, -1, float_val=[0.5, 0.5]),
        _claiming(2, float_val=[0.5]),
        _claiming(2),
        _claiming(2, tensor_content=bytes(7)),
        _claiming(2, tensor_content=bytes(12)),
        _claiming(2, float_val=[0.5, float("nan")]),
        _claiming(1, float_val=[0.5]),
        _claiming(2, dtype=0, float_val=[0.5, 0.5]),
        _claiming(2, dtype=tf.string.as_datatype_enum, string_val=[b"a", b"b"]),
        _claiming(2, dtype=tf.resource.as_datatype_enum),
        predict_pb2.PredictResponse(),
    ],
)
def test_a_message_that_is_no_answer(answer):
    with grpc_server(answer) as address, GrpcClient(address, "hccm", LONG) as client:
        with pytest.raises(AnswerError):
            client.predict("serve_examples", REQUEST)


def test_a_message_over_the_limit():
    answer = _claiming(2, tensor_content=bytes(MAX_BYTES))
    with grpc_server(answer) as address, GrpcClient(address, "hccm", LONG) as client:
        with pytest.raises(grpc.RpcError) as error:
            client.predict("serve_examples", REQUEST)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [0.5, float("nan")]])
def test_regressions_of_another_request(values):
    answer = regression_pb2.RegressionResponse()
    for value in values:
        answer.result.regressions.add(value=value)
    with grpc_server(answer) as address, GrpcClient(address, "hccm", LONG) as client:
        with pytest.raises(AnswerError, match="2 rows|not finite"):
            client.regress([b"", b""])


def test_a_request_without_candidates_is_not_sent():
    with pytest.raises(InputError, match="^requests: number 1, from 0, has no cand"):
        rank_request([[{}], []], None, True)
    inputs = {
        "user_id": np.zeros(2, np.int64),
        "candidate_mask": np.ones((2, 0), bool),
        "item_id": np.ones((2, 0), np.int64),
    }
    client = _Saying({"ctr": np.zeros((2, 0))})
    for batch_size in (None, 1):
        with pytest.raises(InputError, match="^inputs: .*without candidates.*, 0"):
            client.predict("rank", inputs, batch_size)
    histories = {"history_length": np.zeros(2), "history_item_id": np.ones((2, 0))}
    with pytest.raises(InputError, match="^inputs: history_item_id.*one place"):
        client.predict("explain", histories)
    # No row needs none.
    none = {"history_length": np.zeros(0), "history_item_id": np.ones((0, 0))}
    client = _Saying({"history_attention": np.zeros((0, 1))})
    assert len(client.predict("explain", none)["history_attention"]) == 0
