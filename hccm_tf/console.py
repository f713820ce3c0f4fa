"""What pip's commands run: `hccm-validate` is `python -m tfrecords_tools.validate`."""

import functools
import os
import runpy
import sys


def _run(module):
    # As with `python -m`: a model of the user's own stands in the working directory.
    sys.path.append(os.getcwd())
    # Its description and its flags are what --help shows.
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _tool(name):
    return functools.partial(_run, f"tfrecords_tools.{name}")


train = functools.partial(_run, "train_main")
ask = functools.partial(_run, "hccm_tf.serving.ask")
local_cluster = functools.partial(_run, "hccm_tf.training.local_cluster")
predict = functools.partial(_run, "hccm_tf.predict")
report = functools.partial(_run, "hccm_tf.report")
server_config = functools.partial(_run, "hccm_tf.serving.server_config")

build_examples = _tool("build_examples")
extract_feature_maps = _tool("extract_feature_maps")
import_amazon_reviews = _tool("import_amazon_reviews")
import_dvbpr = _tool("import_dvbpr")
import_feature_maps = _tool("import_feature_maps")
import_microlens = _tool("import_microlens")
inspect_examples = _tool("inspect_examples")
make_demo = _tool("make_demo")
refresh_export = _tool("refresh_export")
semantic_ids = _tool("semantic_ids")
validate = _tool("validate")
