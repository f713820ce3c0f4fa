"""Servers for the tests of the clients: one of ours, and TensorFlow Serving's."""

import base64
import contextlib
import http.server
import json
import re
import socket
import subprocess
import threading
from concurrent import futures

import grpc
import requests
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from urllib3.util import Retry

LOCALHOST = "127.0.0.1"
REST_PATH = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(?::predict|/metadata)"
)


class Refusal(Exception):
    """An answer other than 200, with a message."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Model:
    """A SavedModel as both interfaces answer from it.

    Attributes:
        unavailable: number of requests that it still answers UNAVAILABLE.
        free: `threading.Event` that answers wait for.
    """

    def __init__(self, version, name, labels):
        self.signatures = tf.saved_model.load(str(version)).signatures
        content = (version / "saved_model.pb").read_bytes()
        (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
        self.definitions = graph.signature_def
        self.name, self.version, self.labels = name, int(version.name), labels
        self.unavailable = 0
        self.free = threading.Event()
        self.free.set()

    def find(self, name, version, label):
        """Raises if a request names another model, version or label."""
        version = self.labels.get(label) if label else version or self.version
        if (name, int(version or -1)) != (self.name, self.version):
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"no {name} {version} {label}")

    def answer(self, signature_name, inputs):
        """Name → tensor."""
        self.free.wait()
        if self.unavailable:
            self.unavailable -= 1
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "come back later")
        signature = self.signatures[signature_name]
        specs = signature.structured_input_signature[1]
        try:
            # TensorFlow Serving converts nothing and asks for every input.
            inputs = {name: tf.constant(value) for name, value in inputs.items()}
            names = {*inputs, *specs}
            wrong = {n for n in names if _dtype(inputs, n) != _dtype(specs, n)}
            if wrong:
                status = grpc.StatusCode.INVALID_ARGUMENT
                raise Refusal(status, f"inputs missing or of another type: {wrong}")
            return signature(**inputs)
        except tf.errors.InvalidArgumentError as error:
            status = grpc.StatusCode.INVALID_ARGUMENT
            raise Refusal(status, error.message) from error


def _dtype(tensors, name):
    return tensors[name].dtype if name in tensors else None


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The gRPC interface."""

    def __init__(self, model):
        self.model = model

    def Predict(self, request, context):
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        answer = predict_pb2.PredictResponse()
        outputs = self._answer(request.model_spec, inputs, context)
        for name, value in outputs.items():
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return answer

    def Regress(self, request, context):
        examples = request.input.example_list.examples
        inputs = {"inputs": [example.SerializeToString() for example in examples]}
        answer = regression_pb2.RegressionResponse()
        outputs = self._answer(request.model_spec, inputs, context)["outputs"]
        for value in outputs.numpy():
            answer.result.regressions.add(value=value)
        return answer

    def _answer(self, spec, inputs, context):
        try:
            self.model.find(spec.name, spec.version.value, spec.version_label)
            return self.model.answer(spec.signature_name, inputs)
        except Refusal as refusal:
            context.abort(refusal.status, str(refusal))


class RestHandler(http.server.BaseHTTPRequestHandler):
    """The REST interface; `model` is set in a subclass."""

    model = None

    def do_GET(self):
        definitions = {
            name: json_format.MessageToDict(definition)
            for name, definition in self.model.definitions.items()
        }
        self._reply({"metadata": {"signature_def": {"signature_def": definitions}}})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = json.loads(body, object_hook=_from_base64)
        try:
            self.model.find(*REST_PATH.fullmatch(self.path).groups())
            name = request["signature_name"]
            specs = self.model.signatures[name].structured_input_signature[1]
            inputs = {
                key: tf.constant(value, specs[key].dtype)
                for key, value in request["inputs"].items()
            }
            outputs = self.model.answer(name, inputs)
        except Refusal as refusal:
            status = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503}
            self._reply({"error": str(refusal)}, status[refusal.status.name])
            return
        outputs = {name: value.numpy().tolist() for name, value in outputs.items()}
        if len(outputs) == 1:
            (outputs,) = outputs.values()
        self._reply({"outputs": outputs})

    def log_message(self, *args):
        pass

    def _reply(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _from_base64(value):
    return base64.b64decode(value["b64"]) if "b64" in value else value


@contextlib.contextmanager
def in_process(model):
    """Yields the addresses, gRPC and REST, at which a `Model` is served."""
    service = grpc.server(futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(model), service
    )
    port = service.add_insecure_port(f"{LOCALHOST}:0")
    service.start()
    handler = type("Handler", (RestHandler,), {"model": model})
    rest = http.server.ThreadingHTTPServer((LOCALHOST, 0), handler)
    thread = threading.Thread(target=rest.serve_forever)
    thread.start()
    try:
        yield f"{LOCALHOST}:{port}", f"http://{LOCALHOST}:{rest.server_port}"
    finally:
        service.stop(None).wait()
        rest.shutdown()
        thread.join()
        rest.server_close()


@contextlib.contextmanager
def tensorflow_model_server(binary, config, name):
    """Yields the addresses of TensorFlow Serving with a file of server_config."""
    with socket.socket() as one, socket.socket() as two:
        one.bind((LOCALHOST, 0))
        two.bind((LOCALHOST, 0))
        port, rest_port = one.getsockname()[1], two.getsockname()[1]
    command = [
        binary,
        f"--port={port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models",
    ]
    process = subprocess.Popen(command)
    try:
        rest = f"http://{LOCALHOST}:{rest_port}"
        with requests.Session() as session:
            waiting = Retry(total=20, backoff_factor=0.1, status_forcelist=[404, 503])
            session.mount(rest, requests.adapters.HTTPAdapter(max_retries=waiting))
            session.get(f"{rest}/v1/models/{name}/metadata").raise_for_status()
        yield f"{LOCALHOST}:{port}", rest
    finally:
        process.terminate()
        process.wait()
