"""Versions are whole when they appear, as servers that poll the folder need it."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd

from hccm_tf.serving.refresh import refresh
from tests.reference import read_maps
from tests.serving.test_refresh import write_store

COUNT = 2
# Prints each version with its files and their sizes when it first sees it. Of plain
# Python, so that nothing holds it up.
LOOK = """
import json, pathlib, sys, time
folder, stop, seen = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), set()
ended = False
while not ended:
    ended = stop.exists()
    for version in folder.iterdir():
        if version.name.isdigit() and version.name not in seen:
            seen.add(version.name)
            files = [path for path in version.rglob("*") if path.is_file()]
            sizes = {str(path.relative_to(version)): path.stat().st_size
                     for path in files}
            print(json.dumps([str(version), sizes]), flush=True)
    time.sleep(0.0005)
"""
# Loads each of them, and prints how many rows the table has.
LOAD = """
import json, sys
import tensorflow as tf
for line in sys.stdin:
    version, sizes = json.loads(line)
    model = tf.saved_model.load(version)
    variables = model.signatures["serving_default"].variables
    rows = {v.name: len(v.numpy()) for v in variables
            if v.name.startswith("representation_")}
    print(json.dumps([version, sizes, rows]), flush=True)
"""


def test_a_version_is_whole_when_it_is_seen(fitted, shop, tmp_path):
    folder, stop = tmp_path / "versions", tmp_path / "stop"
    folder.mkdir()
    maps, (category, *_) = read_maps(shop.maps), shop.items.category
    new = dict(zip([f"new{i}.jpg" for i in range(COUNT)], maps.values(), strict=False))
    store = write_store(tmp_path / "maps", maps | new)
    command = [sys.executable, "-c", LOOK, folder, stop]
    look = subprocess.Popen(command, stdout=subprocess.PIPE)
    command = [sys.executable, "-c", LOAD]
    load = subprocess.Popen(command, stdin=look.stdout, stdout=subprocess.PIPE)
    try:
        fitted["hccm"].export(folder)
        first = json.loads(load.stdout.readline())
        for count in range(COUNT):
            items = pd.DataFrame({"image": list(new)[: count + 1]})
            items.assign(category=category).to_csv(tmp_path / "items.csv")
            refresh(folder, tmp_path / "items.csv", store)
    finally:
        stop.touch()
    seen = [first, *map(json.loads, load.stdout)]
    assert look.wait() == load.wait() == 0
    assert [version for version, *_ in seen] == [
        str(folder / str(number)) for number in range(1, COUNT + 2)
    ]
    rows = []
    for version, sizes, table in seen:
        assert sizes == {
            str(path.relative_to(version)): path.stat().st_size
            for path in folder.joinpath(version).rglob("*")
            if path.is_file()
        }
        rows.append([table[f"representation_{n}:0"] for n in ("keys", "vectors")])
    np.testing.assert_array_equal(np.diff(rows, axis=0), 1)
    np.testing.assert_array_equal(np.diff(rows, axis=1), 1)
