"""Asks TensorFlow Serving over gRPC, and what the client for REST has in common.

    with GrpcClient("localhost:8500", "hccm", label="stable") as client:
        ctr = client.predict("serving_default", request)["ctr"]

`hccm_tf.serving.request` makes requests of a data folder's impressions. Inputs have the
types of the signature: the server converts none.
"""

import abc
import functools
import json

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from hccm_tf.serving.answers import (
    MAX_BYTES,
    check_answer,
    check_request,
    to_array,
)
from hccm_tf.serving.batches import in_batches

ATTEMPTS = 4
FIRST_WAIT = 0.05  # seconds, about; the next waits are longer
RETRY_POLICY = {
    "maxAttempts": ATTEMPTS,
    "initialBackoff": f"{FIRST_WAIT}s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


class Client(abc.ABC):
    """A context manager that closes itself: `GrpcClient` or `RestClient`.

    Args:
        timeout: seconds for a call, all attempts together.
        version: number, `None` for the server's newest.
        label: `"stable"` or `"canary"` instead of a version.

    Raises:
        ValueError: if both a version and a label are given.
    """

    def __init__(self, timeout, version, label):
        if version is not None and label is not None:
            raise ValueError(
                "a request names a version or a label, not both. "
                f"Received: version={version}, label={label}"
            )
        self.timeout = timeout

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def predict(self, signature_name, inputs, batch_size=None):
        """The outputs of a signature.

        Args:
            signature_name: one of those in `hccm_tf.serving.signatures`.
            inputs: name → array; strings as arrays of objects.
            batch_size: rows in a call at most, `None` for all in one.

        Returns:
            dict, name → array. That of `rank_examples` may be wider than the longest
            request, by 0: the server merges requests.

        Raises:
            ValueError: if the inputs cannot be cut into batches, or a row of them has
                no candidate.
            AnswerError: of `hccm_tf.serving.answers`, if the answer is none to the
                request.
            grpc.RpcError: with `GrpcClient`; `code()` says what it is.
            requests.RequestException: with `RestClient`; an `HTTPError` has the
                server's message.
        """
        ask = functools.partial(self._own_answers, signature_name)
        if batch_size is None:
            return ask(inputs)
        return in_batches(ask, inputs, batch_size)

    def _own_answers(self, signature_name, inputs):
        check_request(inputs)
        outputs = self._predict(signature_name, inputs)
        check_answer(signature_name, inputs, outputs)
        if signature_name == "rank":
            width = inputs["candidate_mask"].shape[1]
        elif signature_name == "explain":
            width = max(1, inputs["history_length"].max(initial=0))
        else:
            return outputs
        # A server that merges requests answers as wide as the widest of them.
        return {name: value[:, :width] for name, value in outputs.items()}

    @abc.abstractmethod
    def close(self):
        """Closes the connection."""

    @abc.abstractmethod
    def _predict(self, signature_name, inputs):
        """One call."""


class GrpcClient(Client):
    """Asks over gRPC; a call that finds the server UNAVAILABLE is repeated.

    Args:
        address: `"host:port"`; TensorFlow Serving's port is 8500.
        model: name.
        timeout, version, label: of `Client`.
    """

    def __init__(self, address, model, timeout=1.0, version=None, label=None):
        super().__init__(timeout, version, label)
        self._spec = model_pb2.ModelSpec(name=model, version_label=label)
        if version is not None:
            self._spec.version.value = version
        methods = [{"name": [{}], "retryPolicy": RETRY_POLICY}]
        options = {
            "grpc.service_config": json.dumps({"methodConfig": methods}),
            # Otherwise 4 MB, which representations of 8,000 images exceed.
            "grpc.max_receive_message_length": MAX_BYTES,
        }
        self._channel = grpc.insecure_channel(address, list(options.items()))
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self):
        self._channel.close()

    def regress(self, examples):
        """Click-through rates through the Regress API.

        Args:
            examples: list of serialized `tf.train.Example`s.

        Returns:
            float32 `[B]`.

        Raises:
            AnswerError, grpc.RpcError: as `predict`.
        """
        request = regression_pb2.RegressionRequest(model_spec=self._spec)
        request.model_spec.signature_name = "regress"
        request.input.example_list.examples.extend(
            tf.train.Example.FromString(example) for example in examples
        )
        answer = self._stub.Regress(request, self.timeout)
        ctr = np.array([r.value for r in answer.result.regressions], np.float32)
        check_answer("regress", {"inputs": examples}, {"outputs": ctr})
        return ctr

    def _predict(self, signature_name, inputs):
        request = predict_pb2.PredictRequest(model_spec=self._spec)
        request.model_spec.signature_name = signature_name
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        outputs = self._stub.Predict(request, self.timeout).outputs
        return {name: to_array(name, value) for name, value in outputs.items()}
