"""An export in the loader of TensorFlow Serving, in a process of its own."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from hccm_tf.models import MODELS
from hccm_tf.serving.export import export
from hccm_tf.serving.request import Impressions
from tests.serving.asking import ALL, ROWS

SCRIPT = Path(__file__).with_name("c_api.py")
LIBRARY = Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"
WARMUP = "assets.extra/tf_serving_warmup_requests"


def signature_defs(version):
    """Name → `SignatureDef` of a SavedModel."""
    content = (version / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    return graph.signature_def


def warmup_requests(version):
    """Of each warm-up record, `(signature name, name → TensorProto)`."""
    requests = []
    for record in tf.data.TFRecordDataset(str(version / WARMUP)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.HasField("regress_log"):
            request = log.regress_log.request
            examples = request.input.example_list.examples
            records = [example.SerializeToString() for example in examples]
            inputs = {"inputs": tf.make_tensor_proto(np.array(records, object))}
        else:
            request = log.predict_log.request
            inputs = dict(request.inputs)
        requests.append((request.model_spec.signature_name, inputs))
    return requests


def request_line(version, name, inputs):
    """A request in the form of the loader; inputs are name → TensorProto."""
    signature = signature_defs(version)[name]
    feeds = {
        signature.inputs[key].name: base64.b64encode(value.SerializeToString()).decode()
        for key, value in inputs.items()
    }
    fetches = [output.name for output in signature.outputs.values()]
    return json.dumps({"feeds": feeds, "fetches": fetches})


def ask(version, requests):
    """The loader's answers to requests of `warmup_requests`; an error is a string."""
    signatures = signature_defs(version)
    lines = [request_line(version, name, inputs) for name, inputs in requests]
    run = subprocess.run(
        [sys.executable, SCRIPT, LIBRARY, version],
        input="\n".join(lines),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    loaded, *answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert "seconds" in loaded, loaded
    for place, (name, _) in enumerate(requests):
        if "error" in answers[place]:
            answers[place] = answers[place]["error"]
        else:
            outputs = signatures[name].outputs
            answers[place] = {k: answers[place][v.name] for k, v in outputs.items()}
    return answers


@pytest.fixture(scope="module", params=["din", "hccm"])
def version(request, versions):
    return versions[request.param]


def test_every_warm_up_record_runs(version):
    requests = warmup_requests(version)
    with_images = MODELS[version.parent.name].has_images
    wanted = ALL if with_images else ALL - {"encode_images", "image_keys"}
    assert {name for name, _ in requests} == wanted
    assert len(requests) <= 1000
    for name, definition in signature_defs(version).items():
        if name in wanted:
            method = definition.method_name.removeprefix("tensorflow/serving/")
            assert method == ("regress" if name == "regress" else "predict")
    # The same by TensorFlow's Python loader.
    signatures = tf.saved_model.load(str(version)).signatures
    for (name, inputs), answer in zip(requests, ask(version, requests), strict=True):
        tensors = {k: tf.constant(tf.make_ndarray(v)) for k, v in inputs.items()}
        expected = signatures[name](**tensors)
        assert set(expected) == set(answer)
        for key, value in expected.items():
            assert value.shape[0] > 0
            np.testing.assert_allclose(answer[key], value, atol=1e-5)


def test_requests_as_examples(version, requests_of_many):
    impressions = Impressions(requests_of_many, "test", ROWS)
    records, examples = (
        {"examples": tf.make_tensor_proto(np.array(values, object))}
        for values in (impressions.records, impressions.examples)
    )
    requests = [("rank_examples", records), ("serve_examples", examples)]
    ranked, single = (answer["ctr"] for answer in ask(version, requests))
    sizes = [len(rows) for rows in impressions.requests]
    found = [ctr for row, size in zip(ranked, sizes, strict=True) for ctr in row[:size]]
    assert max(sizes) > 1 and np.std(single) > 1e-4
    np.testing.assert_allclose(found[:ROWS], single, atol=1e-6)


def test_warm_up_of_a_log_of_requests(fitted, requests_of_many, tmp_path):
    trained = fitted["din"].fitted_.trained
    version = export(trained, requests_of_many, None, tmp_path)
    shapes = {}
    for name, inputs in warmup_requests(version):
        array = tf.make_ndarray(next(iter(inputs.values())))
        shapes.setdefault(name, []).append(array.shape)
        if name == "rank":
            masks = tf.make_ndarray(inputs["candidate_mask"])
    requests = Impressions(requests_of_many, "train", 32).requests
    sizes = [len(rows) for rows in requests]
    np.testing.assert_array_equal(masks.sum(axis=1), sizes)
    assert masks.shape == (len(sizes), 7)
    assert shapes["rank_examples"] == [(1,), (len(sizes),)]
    assert shapes["serve_examples"] == shapes["regress"] == [(1,), (32,)]


def test_a_bad_request_is_an_error_and_the_next_is_answered(version):
    name, good = warmup_requests(version)[0]
    bad = good | {"user_id": tf.make_tensor_proto(np.arange(7))}
    error, answer = ask(version, [(name, bad), (name, good)])
    assert "user_id" in error and "need equal numbers of rows" in error
    assert np.isfinite(answer["ctr"]).all()
