"""Damaged tables, schemas, importer files and images: whole outputs or one line each.

    python -m tests.soak.damaged_inputs --count=100

Gives the tools `--count` files of each kind, damaged at random: bytes changed, lost or
repeated, strange values in cells and in JSON. What a tool makes of one must be an
output that `validate` finds no fault with, or an error of one line that names the file
or the flag that it was given by, and no output. Of `--count` damaged images each must
have a feature map or a reason, and those beside them theirs. Anything else is printed
with the file's path, which is kept, and ends the program with exit code 1.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
import traceback

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from PIL import Image

from tests.one_process import run_here, what_is_wrong
from tests.soak.damage import damage_bytes, damage_cells, damage_json
from tfrecords_tools import build_examples, extract_feature_maps, validate
from tfrecords_tools.importers import amazon_reviews, dvbpr, microlens

ITEM = {
    "parent_asin": "B1",
    "main_category": "Toys",
    "categories": ["Toys", "Cars"],
    "images": [{"large": "https://shop.example/1.jpg", "variant": "MAIN"}],
    "store": "S",
    "price": "$9.99",
}
# The flags of the damaged files, and the file beside which reviews fit no item.
ALSO_NAMED = ("--items: ", "--impressions: ", "--schema: ", "meta.jsonl")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def write_tables(folder):
    """A catalogue and a log, as CSV and Parquet, the schema and DATA of both."""
    rng = np.random.default_rng(0)
    items = pd.DataFrame(
        {
            "item_id": range(1, 9),
            "image": [f"{number}.jpg" for number in range(8)],
            "category": ["shoe", "hat"] * 4,
            "price": rng.random(8).round(2),
        }
    )
    log = pd.DataFrame(
        {
            "user_id": rng.integers(1, 5, 60),
            "item_id": rng.integers(1, 9, 60),
            "timestamp": np.arange(60) // 2 + 1_600_000_000,
            "label": rng.integers(0, 2, 60),
            "device": rng.choice(["phone", "desk"], 60),
            "age": rng.random(60).round(2),
        }
    )
    for name, table in (("items", items), ("impressions", log)):
        table.to_csv(folder / f"{name}.csv", index=False)
        table.to_parquet(folder / f"{name}.parquet", index=False)
    found = build(folder, folder / "data", {})
    assert found == (0, ""), found
    return folder / "data" / "schema.json"


def build(folder, output, changed):
    """Runs `build_examples`; `changed` are the flags of the damaged file."""
    words = {name: folder / f"{name}.csv" for name in ("items", "impressions")}
    words = {**words, **changed, "output_dir": output}
    return run_here(build_examples, *(f"--{n}={v}" for n, v in words.items()))


def tables(folder, rng, count):
    """Yields `(kind, damaged file, function that runs a tool on it)`."""
    schema = json.loads(write_tables(folder).read_text())
    for number in range(count):
        name = ("items", "impressions")[number % 2]
        for suffix in ("csv", "parquet"):
            path = folder / f"damaged.{suffix}"
            whole = folder / f"{name}.{suffix}"
            if suffix == "csv" and number % 3:
                text = damage_cells(whole.read_text(), rng)
                path.write_text(text, "utf-8")
            else:
                path.write_bytes(damage_bytes(whole.read_bytes(), rng))
            yield (
                f"{name}.{suffix}",
                path,
                lambda out, n=name, p=path: build(folder, out, {n: p}),
            )
        path = folder / "damaged.json"
        path.write_text(damage_json(schema, rng))
        yield "schema", path, lambda out, p=path: build(folder, out, {"schema": p})


def importers(folder, rng, count):
    """Likewise, of the importers' files."""
    reviews = "user_id,parent_asin,rating,timestamp\n" + 4 * "u,B1,5,1588615855070\n"
    (folder / "reviews.csv").write_text(reviews)
    (folder / "meta.jsonl").write_text(json.dumps(ITEM) + "\n")

    def amazon(output, **changed):
        paths = {n: folder / n for n in ("meta.jsonl", "reviews.csv")} | changed
        return run_here(
            amazon_reviews,
            f"--meta={paths['meta.jsonl']}",
            f"--reviews={paths['reviews.csv']}",
            f"--output_dir={output}",
            "--negatives=0",
        )

    log = {
        "user_id": [1, 2],
        "item_id": [1, 2],
        "item_seq": [[0, 2], [0, 1]],
        "likes_level": [1, 2],
        "views_level": [2, 1],
        "label": [0, 1],
    }
    lens = folder / "lens"
    lens.mkdir()
    pd.DataFrame(log).to_parquet(lens / "valid.parquet")
    pd.DataFrame({"item_id": [1, 2], "item_tags": [[3], [0, 4]]}).to_parquet(
        lens / "item_info.parquet"
    )
    pd.DataFrame(log).to_parquet(folder / "train.parquet")
    clicks = {str(user): [{"productid": user}] for user in range(3)}
    fashion = [clicks, clicks, clicks, {str(n): {"c": [0, 1]} for n in range(3)}, 3, 3]
    for _ in range(count):
        path = folder / "damaged.jsonl"
        path.write_text(damage_json(ITEM, rng) + "\n")
        yield "amazon metadata", path, lambda o, p=path: amazon(o, **{"meta.jsonl": p})
        path = folder / "damaged.csv"
        path.write_text(damage_cells(reviews, rng), "utf-8")
        yield "amazon reviews", path, lambda o, p=path: amazon(o, **{"reviews.csv": p})
        path = lens / "train.parquet"
        path.write_bytes(damage_bytes((folder / "train.parquet").read_bytes(), rng))
        yield (
            "microlens",
            path,
            lambda o: run_here(microlens, f"--input={lens}", f"--output_dir={o}"),
        )
        path = folder / "damaged.npy"
        # Its values only: whose bytes are damaged is a program that is.
        damaged = json.loads(damage_json(fashion, rng))
        np.save(path, _with_numbers(damaged), allow_pickle=True)
        yield (
            "dvbpr",
            path,
            lambda o, p=path: run_here(
                dvbpr, f"--input={p}", f"--output_dir={o}", "--allow_pickle"
            ),
        )


def _with_numbers(content):
    """What JSON makes text of: numbers as keys, and keys of bytes."""
    if isinstance(content, dict):
        return {
            int(k) if k.isdecimal() else k.encode("utf-8", "replace"): _with_numbers(v)
            for k, v in content.items()
        }
    if isinstance(content, list) and len(content) == 6:
        array = np.empty(6, object)
        array[:] = [_with_numbers(value) for value in content]
        return array
    if isinstance(content, list):
        return [_with_numbers(value) for value in content]
    return content


def fault(kind, path, run, output):
    """What is wrong with what a tool made of a damaged file, or `""`; and how it went.

    Returns:
        `(fault, "refused" or "taken")`.
    """
    try:
        with quiet():
            code, errors = run(output)
    except Exception:
        return traceback.format_exc(), "refused"
    if code:
        wrong = what_is_wrong((code, errors), path.name, *ALSO_NAMED)
        if output.exists():
            wrong += f"; an error, and {output}"
        return wrong, "refused"
    if not output.is_dir():
        return "no error, and no output", "taken"
    if (output / "schema.json").exists():
        with quiet():
            code, errors = run_here(validate, f"--data_dir={output}")
        return errors if code else "", "taken"
    for table in output.glob("*.parquet"):
        pq.read_table(table).validate(full=True)
    return "", "taken"


def images(folder, rng, count):
    """Faults of a run over damaged images, list of str, and counts of what became."""
    photos = folder / "photos"
    photos.mkdir()
    names = []
    for number in range(count):
        pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
        path = photos / f"{number}.{FORMATS[number % len(FORMATS)].lower()}"
        Image.fromarray(pixels).save(path)
        shutil.copy(path, photos / f"whole-{path.name}")
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
        names += [path.name, f"whole-{path.name}"]
    items = pd.DataFrame({"item_id": range(len(names)), "image": names, "category": 1})
    items.to_csv(folder / "photos.csv", index=False)
    code, errors = run_here(
        extract_feature_maps,
        f"--items={folder / 'photos.csv'}",
        f"--image_dir={photos}",
        f"--output_dir={folder / 'maps'}",
        "--weights=random",
        "--image_size=33",
        "--layer=expanded_conv_2_add",
    )
    if code:
        return [f"images: {errors}"], {}
    skipped = set(pd.read_csv(folder / "maps" / "skipped.csv").image)
    there = set(pq.read_table(folder / "maps" / "images.parquet")["image"].to_pylist())
    wrong = sorted(set(names) - (skipped ^ there))
    wrong += sorted(name for name in skipped if name.startswith("whole-"))
    return [f"image {name}" for name in wrong], {
        "images refused": len(skipped),
        "images taken": count - len(skipped),
    }


@contextlib.contextmanager
def quiet():
    """Hides what tools print; what they find wrong goes to stderr."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def main(count, seed):
    rng = np.random.default_rng(seed)
    counts, faults = collections.Counter(), []
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hccm_tf-damaged-"))
    for cases in (tables, importers):
        place = folder / cases.__name__
        place.mkdir()
        for number, (kind, path, run) in enumerate(cases(place, rng, count)):
            output = place / "output"
            wrong, outcome = fault(kind, path, run, output)
            counts[f"{kind} {outcome}"] += 1
            if wrong:
                kept = folder / f"{cases.__name__}-{number}{path.suffix}"
                shutil.copy(path, kept)
                faults.append(f"{kind}, {kept}: {wrong}")
            shutil.rmtree(output, ignore_errors=True)
            left = [p.name for p in place.iterdir() if "incomplete" in p.name]
            if left:
                faults.append(f"{kind}, {path}: it left {left}")
    wrong, found = images(folder, rng, count)
    faults += wrong
    counts.update(found)
    for name, number in sorted(counts.items()):
        print(f"{name}: {number}")
    print(f"{counts.total()} damaged inputs, {len(faults)} faults")
    if faults:
        sys.exit("\n".join(faults))
    shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="Of files of each kind.")
    parser.add_argument("--seed", type=int, default=0, help="Of the damages.")
    main(**vars(parser.parse_args()))
