"""Loads an export in a process without this project and asks it one request.

    python hccm_tf/serving/ask.py saved_models/hccm/1 RUN/request.json

The request is the JSON that TensorFlow Serving's REST interface takes.
"""

import json
import sys

import tensorflow as tf


def main(saved_model, request):
    """Prints the outputs of the request's signature."""
    with open(request) as handle:
        request = json.load(handle)
    signature = tf.saved_model.load(saved_model).signatures[request["signature_name"]]
    specs = signature.structured_input_signature[1]
    inputs = {
        name: tf.constant(value, specs[name].dtype)
        for name, value in request["inputs"].items()
    }
    for name, value in signature(**inputs).items():
        print(f"{name} = {value.numpy().tolist()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
