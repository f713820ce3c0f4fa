"""Tools killed at random moments: no output, or a whole one, and the next run makes it.

    python -m tests.soak.kills quickstart --kills=6

Of each tool that writes, in a folder of `make quickstart`: one run undisturbed, then
`--kills` that SIGKILL ends at a random moment of its time, each followed by a look at
what is there, and one that goes on to its end. Its output must be that of the
undisturbed run, and nothing may be left beside it. `benchmarks/faults.py` does this to
training. A difference ends the program with exit code 1.
"""

import argparse
import hashlib
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pandas as pd

from tests import processes

# Of processes that a small log has none of.
IN_PROCESSES = """
from hccm_tf.preparation.examples import build
build.SHARDS_FOR_PROCESSES, build.SHARD_ROWS = 2, 2_000
from tfrecords_tools.build_examples import define_flags, main
from hccm_tf.commands import run
run(main, define_flags, words="--")
"""
# Files that hold their time or have no order of their own: they are only there or not.
OF_NO_ORDER = (".h5", ".pb", ".index", ".data-00000-of-00001")


def commands(quickstart, folder):
    """Tool → words of its command line, without the output, and its flag."""
    shop = quickstart / "shop"
    tables = [f"--items={shop / 'items.csv'}"]
    log = f"--impressions={shop / 'impressions.csv'}"
    build = [*tables, log, "--max_history=50"]
    maps = [f"--image_dir={shop / 'images'}", "--weights=random", "--image_size=33"]
    layer = "--layer=expanded_conv_1_depthwise_bn"
    write_sources(folder)
    importer = "tfrecords_tools.importers."
    return {
        "make_demo": ["-m", "tfrecords_tools.make_demo"],
        "build_examples": ["-m", "tfrecords_tools.build_examples", *build],
        "build_examples in processes": ["-c", IN_PROCESSES, *build],
        "extract_feature_maps": [
            *("-m", "tfrecords_tools.extract_feature_maps", *tables, *maps, layer)
        ],
        "amazon_reviews": [
            *("-m", f"{importer}amazon_reviews", f"--meta={folder / 'meta.jsonl'}"),
            f"--reviews={folder / 'reviews.csv'}",
        ],
        "microlens": ["-m", f"{importer}microlens", f"--input={folder / 'lens'}"],
        "dvbpr": [
            *("-m", f"{importer}dvbpr", f"--input={folder / 'data.npy'}"),
            "--allow_pickle",
        ],
        "export": ["train_main.py", f"--from_run={quickstart / 'runs' / 'hccm'}"],
        "refresh_export": [
            *("-m", "tfrecords_tools.refresh_export"),
            f"--items={folder / 'fewer.csv'}",
            f"--feature_maps={quickstart / 'maps'}",
            "--remove_missing",
        ],
    }


def write_sources(folder):
    """Writes what the importers read, of a size that takes them a while."""
    rng = np.random.default_rng(0)
    items, clicks = 3_000, 200_000
    with open(folder / "meta.jsonl", "w") as file:
        for item in range(items):
            record = {"parent_asin": f"B{item}", "main_category": "a", "images": []}
            file.write(json.dumps(record) + "\n")
    reviews = {
        "user_id": rng.integers(0, 5_000, clicks),
        "parent_asin": [f"B{item}" for item in rng.integers(0, items, clicks)],
        "timestamp": 1_588_615_855_070 + np.arange(clicks),
    }
    pd.DataFrame(reviews).to_csv(folder / "reviews.csv", index=False)
    (folder / "lens").mkdir()
    log = {name: rng.integers(1, 9, clicks) for name in ("user_id", "item_id")}
    log |= {name: rng.integers(0, 9, clicks) for name in ("likes_level", "views_level")}
    log |= {"label": rng.integers(0, 2, clicks), "item_seq": [[0, 1, 2]] * clicks}
    for name in ("train", "valid"):
        pd.DataFrame(log).to_parquet(folder / "lens" / f"{name}.parquet")
    tags = {"item_id": range(1, 9), "item_tags": [[0, 1]] * 8}
    pd.DataFrame(tags).to_parquet(folder / "lens" / "item_info.parquet")
    users = {
        u: [{b"productid": int(i)} for i in rng.integers(0, 500, 9)] for u in range(500)
    }
    data = np.empty(6, object)
    photos = {i: {b"imgs": rng.bytes(500)} for i in range(500)}
    data[:] = [users, {}, {}, photos, 500, 500]
    np.save(folder / "data.npy", data, allow_pickle=True)


def content(folder):
    """File → hash of its content, of an output; `None` if there is none."""
    if not folder.exists():
        return None
    return {
        str(path.relative_to(folder)): ""
        if path.name.endswith(OF_NO_ORDER)
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def disturbed(name, words, folder, kills, moments):
    """Faults, list of str, and the number of kills, of one tool."""
    # Of a model it is a version, the first or the next, that is made.
    version = {"export": "1", "refresh_export": "2"}.get(name, "")
    flag = "export_dir" if version else "output_dir"

    def start(output):
        return processes.Script([*words, f"--{flag}={output}"]), time.monotonic()

    def ready(output):
        output.parent.mkdir(parents=True)
        if name == "refresh_export":
            shutil.copytree(folder / "version", output / "1")

    calm = folder / name / "calm"
    ready(calm / "output")
    process, begin = start(calm / "output")
    _, errors = process.communicate()
    seconds = time.monotonic() - begin
    if process.returncode:
        return [f"{name}: {errors}"], 0
    expected = content(calm / "output" / version)
    output = folder / name / "killed" / "output"
    ready(output)
    faults, killed = [], 0
    while killed < kills:
        process, begin = start(output)
        try:
            process.wait(seconds * moments.random())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        killed += process.returncode == -signal.SIGKILL
        if process.returncode not in (0, -signal.SIGKILL):
            _, errors = process.communicate()
            return [*faults, f"{name}: after {killed} kills: {errors}"], killed
        found = content(output / version)
        if found is not None:
            if found != expected:
                faults.append(f"{name}: half an output in {output}")
            shutil.rmtree(output / version)
    process, _ = start(output)
    _, errors = process.communicate()
    if process.returncode or content(output / version) != expected:
        faults.append(f"{name}: after {killed} kills: {errors or 'another output'}")
    left = {path.name for path in output.parent.iterdir()} - {"output"}
    left |= {p.name for p in output.iterdir() if ".incomplete" in p.name}
    if left:
        faults.append(f"{name}: it left {sorted(left)}")
    return faults, killed


def main(quickstart, kills, seed):
    quickstart = pathlib.Path(quickstart).resolve()
    moments, faults, total = random.Random(seed), [], 0
    with tempfile.TemporaryDirectory(prefix="hccm_tf-kills-") as folder:
        folder = pathlib.Path(folder)
        items = pd.read_csv(quickstart / "shop" / "items.csv")
        items.head(len(items) // 2).to_csv(folder / "fewer.csv", index=False)
        model = quickstart / "saved_models" / "hccm" / "1"
        shutil.copytree(model, folder / "version")
        for name, words in commands(quickstart, folder).items():
            found, killed = disturbed(name, words, folder, kills, moments)
            print(f"{name}: {killed} kills, {len(found)} faults", flush=True)
            faults += found
            total += killed
    print(f"{total} kills, {len(faults)} faults")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("quickstart", help="The folder that make quickstart writes.")
    parser.add_argument("--kills", type=int, default=6, help="Of each tool.")
    parser.add_argument("--seed", type=int, default=0, help="Of the kills.")
    main(**vars(parser.parse_args()))
