"""Versions are whole when they appear, as servers that poll the folder need it."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import tensorflow as tf

from hccm_tf.serving.refresh import refresh
from hccm_tf.serving.request import Impressions, impressions_request
from tests.reference import read_maps
from tests.serving.test_c_api import LIBRARY, SCRIPT, request_line
from tests.serving.test_refresh import write_store

COUNT = int(os.environ.get("REFRESHES", "2"))
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
# Loads each of them by the C API, and prints its answer to the request.
LOAD = """
import base64, json, pathlib, sys
sys.path.insert(0, sys.argv[1])
import c_api
library = c_api.open_library(sys.argv[2])
for line in sys.stdin:
    version, sizes = json.loads(line)
    session = c_api.Session(library, version)
    request = json.loads(pathlib.Path(sys.argv[3]).read_text())
    feeds = {k: base64.b64decode(v) for k, v in request["feeds"].items()}
    (answer,) = session.run(feeds, request["fetches"]).values()
    print(json.dumps([version, sizes, answer.tolist()]), flush=True)
"""


def test_a_version_is_whole_when_it_is_seen(versions, shop, tmp_path):
    folder, stop, line = (tmp_path / name for name in ("versions", "stop", "line"))
    folder.mkdir()
    maps, category = read_maps(shop.maps), shop.items.category[0]
    new = dict(zip([f"new{i}.jpg" for i in range(COUNT)], maps.values(), strict=False))
    assert len(new) == COUNT
    store = write_store(tmp_path / "maps", maps | new, shop.store.cnn)
    command = [sys.executable, "-c", LOOK, folder, stop]
    look = subprocess.Popen(command, stdout=subprocess.PIPE)
    command = [sys.executable, "-c", LOAD, SCRIPT.parent, LIBRARY, line]
    load = subprocess.Popen(command, stdin=look.stdout, stdout=subprocess.PIPE)
    try:
        # Elsewhere first, because the names of the tensors are in it.
        version = shutil.copytree(versions["hccm"], tmp_path / "first")
        # Of one impression, with each of the new images.
        rows = Impressions(shop.data, "test", 1).rows * COUNT
        request = impressions_request(rows, shop.schema, with_images=True)
        request["image"] = np.array(list(new), object)
        request["item_id"] = 9000 + np.arange(COUNT)
        request = {k: tf.make_tensor_proto(v) for k, v in request.items()}
        line.write_text(request_line(version, "serving_default", request))
        version.rename(folder / "1")
        answers = [json.loads(load.stdout.readline())]
        for count in range(COUNT):
            items = pd.DataFrame({"image": list(new)[: count + 1]})
            items = items.assign(item_id=9000 + items.index, category=category, price=1)
            items.to_csv(tmp_path / "items.csv")
            refresh(folder, tmp_path / "items.csv", store)
    finally:
        stop.touch()
    answers += map(json.loads, load.stdout)
    assert look.wait() == load.wait() == 0
    names = [str(folder / str(number)) for number in range(1, COUNT + 2)]
    assert [version for version, *_ in answers] == names
    for number, (version, sizes, ctr) in enumerate(answers):
        assert sizes == {
            str(path.relative_to(version)): path.stat().st_size
            for path in folder.joinpath(version).rglob("*")
            if path.is_file()
        }
        # It knows as many of the new images.
        known = np.not_equal(ctr, answers[0][2])
        np.testing.assert_array_equal(known, np.arange(COUNT) < number)
