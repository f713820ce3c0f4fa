"""What a refresh of a large export costs, against a copy of its folder.

    python benchmarks/refresh_export.py --json=FILE

In turn: `tfrecords_tools.refresh_export` with a catalogue that has one new photo, with
one that has --new of them, and a sequential copy of the old version. Each refresh is a
process of its own; its time begins after the imports, its memory is the peak. Needs
three times the table's size on disk.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from absl import app, flags
from serving_export import CATEGORIES, export
from stores import make_store
from timing import ratio, report, seconds

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.serving.export import CNN

REFRESH = """
import json, resource, sys, time
from hccm_tf.serving.refresh import refresh
start = time.perf_counter()
refresh(*sys.argv[1:])
took = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([took, peak / 1e3]))
"""
FLAGS = flags.FLAGS


def write_items(path, rows, new):
    """A catalogue of the table's images and of new ones."""
    images = [f"{row}.jpg" for row in range(rows)] + [f"new{i}.jpg" for i in range(new)]
    category = [row % CATEGORIES for row in range(len(images))]
    pq.write_table(pa.table({"image": images, "category": category}), path)
    return path


def refresh(export_dir, items, maps):
    """`(seconds, peak MB)`; the new version is removed."""
    command = [sys.executable, "-c", REFRESH, export_dir, items, maps]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(export_dir / "2")
    return json.loads(run.stdout.splitlines()[-1])


def main(argv):
    del argv
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        _, version = export(folder / "export", FLAGS.rows)
        maps = folder / "maps"
        make_store(maps, [f"new{i}.jpg" for i in range(FLAGS.new)])
        (version / CNN).parent.mkdir()
        (version / CNN).write_text(json.dumps(FeatureMapStore.open(maps).cnn))
        arms = {"one new photo": 1, f"{FLAGS.new:,} new photos": FLAGS.new}
        items = {
            arm: write_items(folder / f"{new}.parquet", FLAGS.rows, new)
            for arm, new in arms.items()
        }
        rounds = []
        for _ in range(FLAGS.rounds + 1):
            row = {arm: refresh(version.parent, items[arm], maps) for arm in arms}
            row["copy"] = seconds(lambda: shutil.copytree(version, folder / "copy")), 0
            shutil.rmtree(folder / "copy")
            rounds.append(row)
    times = pd.DataFrame([{k: v[0] for k, v in row.items()} for row in rounds[1:]])
    memory = pd.DataFrame([{k: v[1] for k, v in row.items()} for row in rounds[1:]])
    one, many = arms
    table = pd.DataFrame({"seconds": times.median(), "peak MB": memory.median()})
    per_photo = (times[many] - times[one]).median() / (FLAGS.new - 1)
    ratios = {
        "refresh with one new photo / copy": ratio(times, one, "copy"),
        "ms for each new photo": (1e3 * per_photo,),
    }
    report({f"{FLAGS.rows:,} rows of 128 x float16": table}, ratios, FLAGS.json)


if __name__ == "__main__":
    flags.DEFINE_integer("rows", 10_000_000, "Rows of the table.")
    flags.DEFINE_integer("new", 5_000, "New photos.", lower_bound=2)
    flags.DEFINE_integer("rounds", 3, "Times each side runs.", lower_bound=1)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
