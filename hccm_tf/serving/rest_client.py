"""Asks TensorFlow Serving over REST.

with RestClient("http://localhost:8501", "hccm", label="stable") as client:
    ctr = client.predict("serving_default", request)["ctr"]
"""

import base64
import json

import numpy as np
import requests
import tensorflow as tf
from urllib3.util import Retry

from hccm_tf.serving.client import ATTEMPTS, FIRST_WAIT, Client


class RestClient(Client):
    """Asks over REST; a call that is answered 503 is repeated.

    REST knows no float16, which `encode_images` takes: ask for that over gRPC.

    Args:
        address: `"http://host:port"`; TensorFlow Serving's port is 8501.
        model: name.
        timeout: seconds for each attempt.
        version, label: of `Client`.
    """

    def __init__(self, address, model, timeout=1.0, version=None, label=None):
        super().__init__(timeout, version, label)
        self._url = f"{address.rstrip('/')}/v1/models/{model}"
        if version is not None:
            self._url += f"/versions/{version}"
        if label is not None:
            self._url += f"/labels/{label}"
        retries = Retry(
            total=ATTEMPTS - 1,
            read=False,
            status_forcelist=[503],
            allowed_methods=None,
            backoff_factor=FIRST_WAIT,
            raise_on_status=False,
        )
        self._session = requests.Session()
        self._session.mount(address, requests.adapters.HTTPAdapter(max_retries=retries))
        self._signatures = None

    def close(self):
        self._session.close()

    def _predict(self, signature_name, inputs):
        if self._signatures is None:
            metadata = self._ask("GET", "/metadata")["metadata"]
            self._signatures = metadata["signature_def"]["signature_def"]
        inputs = {name: value.tolist() for name, value in inputs.items()}
        request = {"signature_name": signature_name, "inputs": inputs}
        # Not `json=`, which refuses NaN; TensorFlow Serving takes it.
        request = json.dumps(request, default=_text_or_base64)
        outputs = self._ask("POST", ":predict", data=request)["outputs"]
        infos = self._signatures[signature_name]["outputs"]
        if not isinstance(outputs, dict):
            # A single output comes without its name.
            outputs = dict.fromkeys(infos, outputs)
        return {
            name: np.array(value, _numpy_type(infos[name]["dtype"]))
            for name, value in outputs.items()
        }

    def _ask(self, method, path, data=None):
        url = self._url + path
        answer = self._session.request(method, url, data=data, timeout=self.timeout)
        if not answer.ok:
            message = f"{url} answers {answer.status_code}. Received: {answer.text}"
            raise requests.HTTPError(message, response=answer)
        return answer.json()


def _text_or_base64(value):
    """Bytes in the form in which TensorFlow Serving reads them from JSON."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _numpy_type(name):
    """NumPy's type for one as protocol buffers call it: `"DT_FLOAT"`."""
    return tf.as_dtype(name.removeprefix("DT_").lower()).as_numpy_dtype
