"""Checks the files of a data folder other than its records."""

import pathlib

import numpy as np
import pandas as pd

from hccm_tf import files
from hccm_tf.data import ids
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import vocabulary_file
from hccm_tf.errors import InputError

CHUNK_ROWS = 65_536


def read_json(path, get, errors):
    """`get(content)` of a JSON file; `None` and an error if it has no such content."""
    try:
        return get(files.read_json(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        errors.append(f"{path}: cannot be read ({error!r}); build the examples again")
        return None


def check_catalogue(data_dir, lines, errors):
    """Sorted keys of the catalogue: `{"item_id": [N], "image": [M]}`, or `{}`."""
    path = DataFolder(data_dir).catalogue_file
    items, images, without = ([np.zeros(0, np.int64)] for _ in range(3))
    try:
        table = DataFolder(data_dir).catalogue()
        for batch in table.to_batches(max_chunksize=CHUNK_ROWS):
            items.append(ids.to_keys(batch["item_id"].to_numpy(False)).numpy())
            images.append(batch["image_key"].to_numpy(False))
            keys = ids.image_keys(batch["image"].to_numpy(False)).numpy()
            unlike = images[-1] != keys
            if images[-1][unlike].any():
                raise ValueError("image_key is not the image's")
            without.append(keys[unlike])
    except InputError as error:
        errors.append(str(error))
        return {}
    except (ValueError, TypeError) as error:
        errors.append(f"{path}: not a catalogue ({error}); build the examples again")
        return {}
    images = np.unique(np.concatenate(images))
    if not np.isin(np.concatenate(without), images).all():
        errors.append(
            f"{path}: image_key is 0 of an image whose key no other one has; build the "
            "examples again"
        )
    items = np.concatenate(items)
    order = np.argsort(items, kind="stable")
    twice = np.flatnonzero(table["item_id"].to_pandas().duplicated())
    if twice.size:
        row = int(twice[0])
        errors.append(
            f"{path}: column item_id, row {row + 1}: a repeated id. Received: "
            f"{table['item_id'][row]} ({twice.size} such rows)"
        )
    lines.append(f"{data_dir}: a catalogue of {items.size} items")
    return {"item_id": items[order], "image": images}


def check_feature_maps(path, image_keys, lines, errors):
    """Sorted keys of the images that have a map: `{"feature map": [N]}`, or `{}`."""
    try:
        store = FeatureMapStore.open(path)
        store.check()
    except InputError as error:
        errors.append(str(error))
        return {}
    wanted = image_keys[image_keys != ids.NO_IMAGE]
    found = np.isin(wanted, store.keys).sum()
    lines.append(f"feature maps of {found} of the catalogue's {wanted.size} images")
    if 2 * found < wanted.size:
        errors.append(
            f"{path}: feature maps of {found} of the catalogue's {wanted.size} images; "
            "extract those of this catalogue"
        )
    return {"feature map": store.keys}


def check_schema_files(data_dir, errors):
    """The `Schema`, or `None`."""
    try:
        schema = DataFolder(data_dir).schema()
    except InputError as error:
        errors.append(str(error))
        return None
    for name, keys in schema.vocabularies.items():
        path = vocabulary_file(data_dir, name)
        if len(keys) != schema[name].size:
            errors.append(
                f"{path}: {len(keys)} values, in schema.json {schema[name].size}"
            )
        if (keys[1:] <= keys[:-1]).any():
            errors.append(f"{path}: keys out of order; build the examples again")
    return schema


def find_shards(data_dir, errors):
    """The shards that dataset_info.json names.

    Returns:
        `(shards, complete)`: data frame `split, number, length, path`, a row for
        each file that is there, and whether these are all.
    """
    folder = DataFolder(data_dir)
    try:
        shard_lengths, known = folder.shard_lengths(), True
    except InputError as error:
        errors.append(str(error))
        shard_lengths, known = {}, False
    shards = pd.DataFrame(
        [
            (split, number, length, pathlib.Path(path))
            for split, lengths in shard_lengths.items()
            for number, (length, path) in enumerate(
                zip(lengths, folder.files(split), strict=True)
            )
        ],
        columns=["split", "number", "length", "path"],
    )
    for path in sorted(set(folder.found_files()) - set(shards.path)):
        errors.append(f"{path}: not in dataset_info.json")
    exists = np.array([path.exists() for path in shards.path], bool)
    for path in shards.path[~exists]:
        errors.append(f"{path}: no such file, but it is in dataset_info.json")
    return shards[exists], exists.all() and known
