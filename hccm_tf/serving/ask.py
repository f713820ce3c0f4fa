"""Loads an export in a process without this project and asks it one request.

    python hccm_tf/serving/ask.py saved_models/hccm/1 RUN/request.json

The request is the JSON that TensorFlow Serving's REST interface takes. An export is a
program: ask none of strangers.
"""

import argparse
import contextlib
import json


def main(saved_model, request):
    """Prints the outputs of the request's signature."""
    # Where this project is installed, TensorFlow starts quietly.
    with contextlib.suppress(ImportError):
        from hccm_tf.quiet import quiet_tensorflow

        quiet_tensorflow()
    # Not at the top: what is wrong with the words is said without it.
    import tensorflow as tf

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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("saved_model", help="The folder of a version of an export.")
    parser.add_argument("request", help="The JSON file of the request.")
    main(**vars(parser.parse_args()))
