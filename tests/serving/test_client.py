"""The clients against servers, and both against the loaded model."""

import shutil

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf

from hccm_tf.data import ids
from hccm_tf.serving.client import ATTEMPTS, Client, GrpcClient
from hccm_tf.serving.request import Impressions, impressions_request, rank_request
from hccm_tf.serving.rest_client import RestClient
from hccm_tf.serving.server_config import FILE, write_server_config
from tests.serving.servers import Model, in_process, tensorflow_model_server

ROWS = 12
SERVERS = ("in_process", "tensorflow_model_server")
CLIENTS = {GrpcClient: 0, RestClient: 1}
# Seconds, so that a busy machine does not fail a test.
PATIENT = 60


@pytest.fixture(scope="module")
def version(versions, tmp_path_factory):
    """The export in a folder of its own, where a server's configuration is written."""
    folder = tmp_path_factory.mktemp("models") / "hccm" / "1"
    return shutil.copytree(versions["hccm"], folder)


@pytest.fixture(scope="module")
def model(version):
    return Model(version, "hccm", {"stable": 1, "canary": 1})


@pytest.fixture(scope="module")
def own_server(model):
    with in_process(model) as addresses:
        yield addresses


@pytest.fixture(scope="module", params=SERVERS)
def server(request, version):
    if request.param == "in_process":
        yield request.getfixturevalue("own_server")
        return
    binary = shutil.which("tensorflow_model_server")
    if binary is None:
        pytest.skip("tensorflow_model_server is not on the PATH")
    models_dir = version.parent.parent
    write_server_config(models_dir, base_path=str(models_dir))
    with tensorflow_model_server(binary, models_dir / FILE, "hccm") as addresses:
        yield addresses


@pytest.fixture(params=CLIENTS, ids=lambda client: client.__name__)
def connect(request):
    """Makes a client of `server`'s addresses."""
    clients = []

    def make(addresses, **options):
        address = addresses[CLIENTS[request.param]]
        options = {"timeout": PATIENT, **options}
        clients.append(request.param(address, "hccm", **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def requested(shop):
    """Signature → request."""
    impressions = Impressions(shop.data, "test", ROWS)
    examples = np.array(impressions.examples, object)
    items = shop.items.head(ROWS)
    image = items.image.fillna("").to_numpy(object)
    columns = impressions_request(impressions.rows, shop.schema, True)
    return {
        "serving_default": columns,
        "rank": rank_request([impressions.rows], shop.schema, True),
        "rank_examples": {"examples": np.array(impressions.records, object)},
        "serve_examples": {"examples": examples},
        "regress": {"inputs": examples},
        "explain": columns,
        "encode_images": {
            "image_map": shop.store.gather(
                shop.store.find(ids.image_keys(tf.constant(image)))
            ).numpy(),
            "category": items.category.to_numpy(object),
        },
        "image_keys": {"image": image, "category": items.category.to_numpy(object)},
        "encode_items": {
            "item_id": items.item_id.to_numpy(),
            "category": items.category.to_numpy(object),
            "price": items.price.to_numpy(np.float32),
        },
    }


def _load(model, name, request):
    specs = model.signatures[name].structured_input_signature[1]
    tensors = {k: tf.constant(v, specs[k].dtype) for k, v in request.items()}
    return {k: v.numpy() for k, v in model.signatures[name](**tensors).items()}


def _assert_same(found, expected, atol=1e-6):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=0, atol=atol)


def test_answers_are_the_loaded_models(server, connect, model, requested):
    client = connect(server)
    assert set(requested) == set(model.signatures)
    for name, request in requested.items():
        if name == "encode_images" and isinstance(client, RestClient):
            continue  # REST knows no float16.
        _assert_same(client.predict(name, request), _load(model, name, request))


def test_answers_are_the_estimators(server, connect, fitted, shop, requested):
    found = connect(server).predict("serving_default", requested["serving_default"])
    expected = fitted["hccm"].predict_proba(shop.data)[:ROWS, 1]
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found["ctr"], expected, atol=1e-5)


def test_regress(server, requested, fitted, shop):
    with GrpcClient(server[0], "hccm", PATIENT) as client:
        found = client.regress(list(requested["regress"]["inputs"]))
    expected = fitted["hccm"].predict_proba(shop.data)[:ROWS, 1]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, ROWS])
def test_batches_equal_one_call(server, connect, requested, batch_size):
    client = connect(server)
    for name in ("serving_default", "explain"):
        together = client.predict(name, requested[name])
        batches = client.predict(name, requested[name], batch_size)
        _assert_same(batches, together)


def test_batches_of_no_row(server, connect, requested):
    none = {"examples": requested["serve_examples"]["examples"][:0]}
    assert connect(server).predict("serve_examples", none, 5)["ctr"].shape == (0,)


def test_inputs_that_cannot_be_cut(own_server, connect, requested):
    client = connect(own_server)
    request = requested["serving_default"]
    longer = request | {"user_id": np.repeat(request["user_id"], 2)}
    with pytest.raises(ValueError, match="user_id.*24"):
        client.predict("serving_default", longer, ROWS)
    with pytest.raises(ValueError, match="Received: batch_size=0"):
        client.predict("serving_default", request, 0)


def test_bytes_and_numbers_of_all_kinds(server, connect, model, requested):
    names = "serving_default", "image_keys", "encode_items"
    impressions, images, items = (
        {name: value.copy() for name, value in requested[signature].items()}
        for signature in names
    )
    impressions["user_id"][:2] = [-(2**63), 2**63 - 1]
    items["price"][:3] = [np.nan, np.inf, -np.inf]
    # Keys are hashes of the bytes.
    images["image"][:3] = [b"\xff\x00", "ü\0🙂".encode(), b""]
    client = connect(server)
    for name, request in zip(names, (impressions, images, items), strict=True):
        _assert_same(client.predict(name, request), _load(model, name, request))


def test_a_shape_that_does_not_fit_names_the_input(server, connect, requested):
    request = requested["serving_default"]
    bad = request | {"item_id": request["item_id"][:-1]}
    with pytest.raises((grpc.RpcError, requests.HTTPError), match="item_id") as error:
        connect(server).predict("serving_default", bad)
    if isinstance(error.value, grpc.RpcError):
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    else:
        assert error.value.response.status_code == 400


def test_versions_and_labels(server, connect, requested):
    request = {"examples": requested["serve_examples"]["examples"]}
    for options in ({"version": 1}, {"label": "stable"}, {"label": "canary"}):
        found = connect(server, **options).predict("serve_examples", request)
        assert found["ctr"].shape == (ROWS,)
    for options in ({"version": 7}, {"label": "newest"}):
        with pytest.raises((grpc.RpcError, requests.HTTPError)):
            connect(server, **options).predict("serve_examples", request)
    with pytest.raises(ValueError, match="Received: version=1, label=stable"):
        connect(server, version=1, label="stable")


def test_an_unavailable_server_is_asked_again(own_server, connect, model, requested):
    client = connect(own_server)
    request = requested["serve_examples"]
    model.unavailable = 2
    found = client.predict("serve_examples", request)
    assert model.unavailable == 0
    _assert_same(found, _load(model, "serve_examples", request))
    model.unavailable = 100
    try:
        with pytest.raises((grpc.RpcError, requests.HTTPError), match="come back"):
            client.predict("serve_examples", request)
        assert model.unavailable == 100 - ATTEMPTS
    finally:
        model.unavailable = 0


def test_an_answer_that_takes_too_long(own_server, connect, model, requested):
    client = connect(own_server, timeout=0.2)
    model.free.clear()
    try:
        with pytest.raises((grpc.RpcError, requests.Timeout)) as error:
            client.predict("serve_examples", requested["serve_examples"])
    finally:
        model.free.set()
    if isinstance(error.value, grpc.RpcError):
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


class _Padded(Client):
    """Answers as a server that merges requests does: wider than was asked."""

    def close(self):
        pass

    def _predict(self, signature_name, inputs):
        name = {"rank": "ctr", "explain": "history_attention"}[signature_name]
        return {name: np.arange(10, dtype=np.float32)[None].repeat(2, axis=0)}


def test_answers_are_as_wide_as_the_request():
    client = _Padded(1.0, None, None)
    ranked = client.predict("rank", {"candidate_mask": np.ones((2, 7), bool)})
    np.testing.assert_array_equal(ranked["ctr"], [np.arange(7)] * 2)
    explained = client.predict("explain", {"history_length": np.array([3, 5])})
    np.testing.assert_array_equal(explained["history_attention"], [np.arange(5)] * 2)


def test_a_wrong_type_is_an_error_that_names_the_input(own_server, requested):
    request = requested["serving_default"]
    wrong = request | {"user_id": request["user_id"].astype(np.float64)}
    with GrpcClient(own_server[0], "hccm", timeout=PATIENT) as client:
        with pytest.raises(grpc.RpcError) as error:
            client.predict("serving_default", wrong)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "user_id" in error.value.details()
