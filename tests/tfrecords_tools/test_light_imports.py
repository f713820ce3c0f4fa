"""The data tools start TensorFlow and Beam where they use them, and quietly."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd

ROOT = pathlib.Path(__file__).parents[2]
HEAVY = ("tensorflow", "keras", "apache_beam", "tensorflow_datasets")


def _run(script, *arguments):
    """What a script prints as JSON; it says nothing else."""
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout.splitlines()[-1])


FOUND = f"""
import json
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


MODULES = (
    "tfrecords_tools.build_examples",
    "tfrecords_tools.extract_feature_maps",
    "tfrecords_tools.import_feature_maps",
    "tfrecords_tools.importers.amazon_reviews",
    "tfrecords_tools.importers.dvbpr",
    "tfrecords_tools.importers.microlens",
    "tfrecords_tools.inspect_examples",
    "tfrecords_tools.make_demo",
    "tfrecords_tools.refresh_export",
    "tfrecords_tools.semantic_ids",
    "tfrecords_tools.validate",
    "hccm_tf.serving.server_config",
    "hccm_tf.training.local_cluster",
)


def test_imports():
    script = f"""
import importlib, json, sys
found = {{}}
for module in {MODULES}:
    importlib.import_module(module)
    found[module] = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps(found))
"""
    assert _run(script) == {module: [] for module in MODULES}


def test_a_whole_run_of_make_demo(tmp_path):
    script = """
import sys
from tfrecords_tools.demo.shop import make_demo
make_demo(sys.argv[1], 9, 2, 40, seed=0)
"""
    assert _run(script + FOUND, tmp_path / "shop") == []
    assert (tmp_path / "shop" / "items.csv").is_file()


def test_whole_runs_of_importers(tmp_path):
    for name in ("train", "valid"):
        log = {
            "user_id": [1, 2],
            "item_id": [1, 2],
            "item_seq": [[0, 2], [0, 1]],
            "likes_level": [1, 2],
            "views_level": [2, 1],
            "label": [0, 1],
        }
        pd.DataFrame(log).to_parquet(tmp_path / f"{name}.parquet")
    items = {"item_id": [1, 2], "item_tags": [[3], [0, 4]]}
    pd.DataFrame(items).to_parquet(tmp_path / "item_info.parquet")
    clicks = [{0: [{b"productid": 0}]}, {0: [{b"productid": 1}]}, {}]
    items = {number: {b"c": np.eye(3)[number]} for number in range(3)}
    data = np.array([*clicks, items, 1, 3], object)
    np.save(tmp_path / "data.npy", data, allow_pickle=True)
    script = """
import sys
from tfrecords_tools.importers.dvbpr import import_dvbpr
from tfrecords_tools.importers.microlens import import_microlens
import_microlens(sys.argv[1], sys.argv[1] + "/microlens")
import_dvbpr(sys.argv[1] + "/data.npy", sys.argv[1] + "/dvbpr", allow_pickle=True)
"""
    assert _run(script + FOUND, tmp_path) == []
    for shop in ("microlens", "dvbpr"):
        assert (tmp_path / shop / "impressions.parquet").is_file()


def test_integer_ids_are_dealt_out_without_tensorflow(tmp_path):
    """The first step, which workers take for each piece of a log."""
    log = {"user_id": [5, 6, 5], "item_id": [1, 2, 1], "label": [0, 1, 1]}
    pd.DataFrame(log).assign(timestamp=7).to_parquet(tmp_path / "log.parquet")
    script = """
import pathlib, sys
import pyarrow as pa
from hccm_tf.data.schema import Schema
from hccm_tf.preparation.examples.columns import LOG_COLUMNS
from hccm_tf.preparation.examples.job import BuildOptions, Job
from hccm_tf.preparation.examples.shards import deal_out, load_shard, split_by_time
from hccm_tf.preparation.examples.summary import check_read
from hccm_tf.preparation.tables import pieces, read_types

work = pathlib.Path(sys.argv[1])
items = pa.table({"item_id": [1, 2], "key": [1, 2]})
with pa.ipc.new_file(str(work / "items.arrow"), items.schema) as writer:
    writer.write_table(items)
types = read_types(work / "log.parquet", LOG_COLUMNS)
columns = {"user_id": pa.int64(), "item_id": pa.int64()}
job = Job(
    work, work, pieces(work / "log.parquet"), 1, types, columns, Schema(()), 0,
    BuildOptions(), 3,
)
job.make_folders()
deal_out(job, 0)
check_read(job, 0)
split_by_time(job, 0)
loaded = load_shard(job, 0)
assert loaded.table["user_key"].to_pylist() == [5, 6, 5]
assert loaded.request.tolist() == [0, 1, 0]
"""
    assert _run(script + FOUND, tmp_path) == []
