"""What a large representation table costs a serving process: memory, time to load.

    python benchmarks/serving_memory.py --json=FILE

A process that loads an export through TensorFlow's C API, as TensorFlow Serving does
(tests/serving/c_api.py), answers a `rank` request; its memory is that of its private
pages. The floor of the time to load is a SavedModel of one plain variable that has the
bytes of the large table. Needs twice the table's size on disk and, at a time, its size
in memory.
"""

import base64
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import app, flags
from serving_export import export, request
from tensorflow.core.protobuf import saved_model_pb2
from timing import report

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOADER = ROOT / "tests" / "serving" / "c_api.py"
LIBRARY = pathlib.Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"
FLAGS = flags.FLAGS


def table_bytes(rows):
    """Of a key, and of 128 values of two bytes; row 0 has no key."""
    return 8 * rows + 2 * 128 * (rows + 1)


def plain_variable(folder, size):
    """A SavedModel of one variable of so many bytes."""
    module = tf.Module()
    module.variable = tf.Variable(np.zeros(size // 4, np.float32))
    first = tf.function(lambda: {"first": module.variable[:1]}, input_signature=[])
    tf.saved_model.save(module, str(folder), signatures=first)
    return folder


def rank_line(version, rows):
    """A `rank` request in the form of the loader."""
    content = (version / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    definition = graph.signature_def["rank"]
    signature = tf.saved_model.load(str(version)).signatures["rank"]
    feeds = {
        definition.inputs[name].name: base64.b64encode(
            tf.make_tensor_proto(tensor.numpy()).SerializeToString()
        ).decode()
        for name, tensor in request(signature, 1, 200, 100, rows, seed=0).items()
    }
    fetches = [definition.outputs["ctr"].name]
    return json.dumps({"feeds": feeds, "fetches": fetches}) + "\n"


def load(version, line=None):
    """Loads in a new process: `(seconds, private bytes after a request)`."""
    process = subprocess.Popen(
        [sys.executable, LOADER, LIBRARY, version],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    seconds = json.loads(process.stdout.readline())["seconds"]
    if line:
        process.stdin.write(line)
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
    lines = pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    private = sum(int(li.split()[1]) for li in lines if li.startswith("Private_"))
    process.stdin.close()
    process.wait()
    return seconds, 1024 * private


def main(argv):
    del argv
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        sides = {}
        for name, rows in (("small", FLAGS.few_rows), ("large", FLAGS.many_rows)):
            _, version = export(folder / name, rows)
            sides[name] = version, rank_line(version, rows)
        size = table_bytes(FLAGS.many_rows)
        sides["plain variable"] = plain_variable(folder / "plain", size), None
        rounds = []
        for _ in range(FLAGS.rounds + 1):
            rounds.append({name: load(*side) for name, side in sides.items()})
    seconds = pd.DataFrame({k: [r[k][0] for r in rounds[1:]] for k in sides})
    memory = pd.DataFrame({k: [r[k][1] for r in rounds[1:]] for k in sides})
    table = pd.DataFrame({"load s": seconds.median(), "memory MB": memory.median()})
    table["memory MB"] /= 1e6
    growth = memory.large.median() - memory.small.median()
    loads = seconds.large / seconds["plain variable"]
    ratios = {
        "growth of memory / of the table": (
            growth / (size - table_bytes(FLAGS.few_rows)),
        ),
        "time to load / a plain variable": tuple(loads.quantile([0.5, 0.25, 0.75])),
    }
    report({f"{FLAGS.many_rows:,} rows of 128 x float16": table}, ratios, FLAGS.json)


if __name__ == "__main__":
    flags.DEFINE_integer("few_rows", 10_000, "Rows of the small table.")
    flags.DEFINE_integer("many_rows", 10_000_000, "Rows of the large table.")
    flags.DEFINE_integer("rounds", 7, "Times each side is loaded.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
