"""Asks TensorFlow Serving over REST.

with RestClient("http://localhost:8501", "hccm", label="stable") as client:
    ctr = client.predict("serving_default", request)["ctr"]
"""

import base64
import contextlib
import json
import time
import urllib.parse

import numpy as np
import requests
import tensorflow as tf
import urllib3

from hccm_tf.errors import InputError
from hccm_tf.serving.answers import MAX_BYTES, AnswerError
from hccm_tf.serving.client import ATTEMPTS, FIRST_WAIT, Client
from hccm_tf.serving.deadline import DeadlineAdapter

OK, UNAVAILABLE = 200, 503
# Not compressed, so that what comes is as large as it says.
HEADERS = {"Accept-Encoding": "identity"}
MESSAGE = 1000  # characters of a server's message


class _Session(requests.Session):
    def get_redirect_target(self, resp):
        """None: users' histories go where they are sent, and nowhere else."""
        # `allow_redirects=False` would read a redirect's body, however long it is.
        return None


class RestClient(Client):
    """Asks over REST; a call that is answered 503, or not let in, is repeated.

    REST knows no float16, which `encode_images` takes: ask for that over gRPC. No
    redirect is followed.

    Args:
        address: `"http://host:port"`; TensorFlow Serving's port is 8501.
        model: name.
        timeout, version, label: of `Client`.
    """

    def __init__(self, address, model, timeout=1.0, version=None, label=None):
        super().__init__(timeout, version, label)
        self._url = f"{address.rstrip('/')}/v1/models/{_quoted('model', model)}"
        if version is not None:
            self._url += f"/versions/{_quoted('version', version)}"
        if label is not None:
            self._url += f"/labels/{_quoted('label', label)}"
        self._session = _Session()
        self._session.headers.update(HEADERS)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, DeadlineAdapter())
        self._signatures = None

    def close(self):
        self._session.close()

    def _predict(self, signature_name, inputs):
        end = time.monotonic() + self.timeout
        if self._signatures is None:
            self._signatures = _signatures(self._ask("GET", "/metadata", end))
        inputs = {name: value.tolist() for name, value in inputs.items()}
        request = {"signature_name": signature_name, "inputs": inputs}
        # Not `json=`, which refuses NaN; TensorFlow Serving takes it.
        request = json.dumps(request, default=_text_or_base64)
        answer = self._ask("POST", ":predict", end, request)
        with _surprises("the outputs of the model's signature"):
            outputs = answer["outputs"]
            dtypes = _output_types(self._signatures[signature_name])
            if not isinstance(outputs, dict):
                # A single output comes without its name.
                outputs = dict.fromkeys(dtypes, outputs)
            return {name: np.array(v, dtypes[name]) for name, v in outputs.items()}

    def _ask(self, method, path, end, data=None):
        """The JSON of an answer, of some attempts before a moment."""
        url = self._url + path
        for attempt in range(ATTEMPTS):
            # Whatever Retry-After says: the caller's patience is shorter.
            wait = FIRST_WAIT * 2**attempt
            is_last = attempt + 1 == ATTEMPTS or time.monotonic() + wait >= end
            try:
                answer, body = self._attempt(method, url, end, data)
            except requests.ConnectionError as error:
                if is_last or not _is_not_let_in(error):
                    raise
            else:
                if is_last or answer.status_code != UNAVAILABLE:
                    break
            time.sleep(wait)
        return _content(url, answer, body)

    def _attempt(self, method, url, end, data):
        """A `requests.Response` and its body."""
        with self._session.request(
            method,
            url,
            data=data,
            timeout=urllib3.Timeout(total=max(end - time.monotonic(), 1e-3)),
            stream=True,
        ) as answer:
            try:
                body = answer.raw.read(MAX_BYTES + 1, decode_content=False)
            except urllib3.exceptions.TimeoutError as error:
                raise requests.ReadTimeout(error, response=answer) from error
            except urllib3.exceptions.HTTPError as error:
                raise requests.ConnectionError(error, response=answer) from error
        return answer, body


@contextlib.contextmanager
def _surprises(expected):
    """What is not as expected of an answer becomes an `AnswerError`."""
    try:
        yield
    except (
        AttributeError,
        KeyError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise AnswerError(f"the answer is not {expected} ({error})") from error


def _content(url, answer, body):
    """What an answer's body says in JSON."""
    if len(body) > MAX_BYTES:
        raise AnswerError(
            f"{url} answers with more than {MAX_BYTES >> 20} MB; ask for fewer rows at "
            "a time, by batch_size"
        )
    if answer.status_code != OK:
        message = body[:MESSAGE].decode(errors="replace")
        raise requests.HTTPError(
            f"{url} answers {answer.status_code}. Received: {message}", response=answer
        )
    with _surprises("JSON"):
        return json.loads(body)


def _signatures(metadata):
    """Name → signature, of what a server says of a model."""
    with _surprises("metadata of a model"):
        return metadata["metadata"]["signature_def"]["signature_def"]


def _output_types(signature):
    """Name → NumPy's type of each output."""
    outputs = signature["outputs"].items()
    return {name: _numpy_type(output["dtype"]) for name, output in outputs}


def _quoted(what, name):
    """A name as a part of a path."""
    if str(name) in ("", ".", ".."):
        raise InputError(f"{what}: a name. Received: {str(name)!r}")
    return urllib.parse.quote(str(name), safe="")


def _is_not_let_in(error):
    """Whether a `requests.ConnectionError` comes from before anything was sent."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, urllib3.exceptions.NewConnectionError)


def _text_or_base64(value):
    """Bytes in the form in which TensorFlow Serving reads them from JSON."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _numpy_type(name):
    """NumPy's type for one as protocol buffers call it: `"DT_FLOAT"`."""
    return tf.as_dtype(name.removeprefix("DT_").lower()).as_numpy_dtype
