"""Loads an export in a process without this project and asks it one request.

    python hccm_tf/serving/ask.py saved_models/hccm/1 RUN/request.json

The request is the JSON that TensorFlow Serving's REST interface takes. An export is a
program: ask none of strangers.
"""

import argparse
import contextlib
import json
import pathlib
import sys


def main(saved_model, request):
    """Prints the outputs of the request's signature; what is wrong ends the program."""
    folder = pathlib.Path(saved_model)
    if "://" not in saved_model and not (folder / "saved_model.pb").is_file():
        found = sorted(
            path.parent.name for path in folder.glob("[0-9]*/saved_model.pb")
        )
        advice = f"; it has the versions {', '.join(found)}" if found else ""
        _end(f"{folder}: no version of an export, which has a saved_model.pb{advice}")
    try:
        content = json.loads(pathlib.Path(request).read_text())
        name, values = content["signature_name"], content["inputs"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _end(f"{request}: no request with signature_name and inputs ({error!r})")
    # Where this project is installed, TensorFlow starts quietly.
    with contextlib.suppress(ImportError):
        from hccm_tf.quiet import quiet_tensorflow

        quiet_tensorflow()
    # Not at the top: what is wrong with the words is said without it.
    import tensorflow as tf

    signatures = tf.saved_model.load(saved_model).signatures
    if name not in signatures:
        _end(f"signature_name: one of {', '.join(signatures)}. Received: {name}")
    specs = signatures[name].structured_input_signature[1]
    try:
        inputs = {n: tf.constant(value, specs[n].dtype) for n, value in values}
        outputs = signatures[name](**inputs)
    except (KeyError, TypeError, ValueError, tf.errors.OpError) as error:
        takes = ", ".join(f"{n} {s.dtype.name}{s.shape}" for n, s in specs.items())
        reason = str(error).strip().partition("\n")[0]
        _end(f"inputs: signature {name} takes {takes}. Received: {reason}")
    for output, value in outputs.items():
        print(f"{output} = {value.numpy().tolist()}")


def _end(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.error = lambda message: _end(f"{message}; see {parser.prog} --help")
    parser.add_argument("saved_model", help="The folder of a version of an export.")
    parser.add_argument("request", help="The JSON file of the request.")
    main(**vars(parser.parse_args()))
