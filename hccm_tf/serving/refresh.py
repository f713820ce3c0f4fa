"""Writes the next version of an export with new items' images, without training."""

import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from hccm_tf.atomic import check_can_make, new_folder, only_writer
from hccm_tf.data import ids
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.image_folder import ImageFolder
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.preparation.column_facts import is_number
from hccm_tf.preparation.examples.log_values import convert
from hccm_tf.preparation.tables import read_table, read_types
from hccm_tf.serving.exported_version import Version
from hccm_tf.serving.versions import next_version, versions

ARROW_TYPES = {tf.string: pa.string(), tf.int64: pa.int64(), tf.float32: pa.float32()}
CHUNK = 1 << 17


def refresh(
    export_dir,
    items,
    feature_maps=None,
    remove_missing=False,
    image_dir=None,
    **allowed,
):
    """Writes `export_dir/<version>/`, the newest version with a new table of images.

    The (image, category) pairs of `items` that the newest version's table lacks, and
    that have a feature map, go through the version's own `encode_images`; the rows that
    the table has are taken over bit by bit, and everything else of the version too. An
    item whose category changed is a new pair. A new photo needs a new name, because a
    pair that the table has is not encoded again.

    Time of the CNN grows with the new pairs only; what is left reads the old version
    once and writes the new one. Peak memory: the old and the new table, the other
    variables, and the columns of `items`.

    Args:
        export_dir: folder of the versions, `saved_models/<name>`.
        items: path of the catalogue, CSV or Parquet: `image`, empty for none, and, for
            a model with categories, `category`. Other columns are not read.
        feature_maps: path of a `FeatureMapStore` of the CNN that the model was trained
            with; `None` for a model that takes pixels.
        remove_missing: whether to drop rows of pairs that `items` does not have. By
            default they are kept, because users' histories show items that are no
            longer sold, and images under the category that they had.
        image_dir: folder of the images, for a model that takes pixels.
        **allowed: see `hccm_tf.images.read.decode_image`.

    Returns:
        `pathlib.Path` of the new version, or `None` if the table would stay the same.

    Raises:
        InputError: if there is no version with a table below `export_dir`, the feature
            maps do not fit its model, a column is missing or not of the model's type,
            or the table would be empty.
    """
    if not versions(export_dir):
        raise InputError(
            f"export_dir={export_dir}: no version to refresh; export a model first"
        )
    with errors_begin_with("export_dir="):
        check_can_make(next_version(export_dir))
    # No export comes in between, whose model the new version would take back.
    with only_writer(export_dir):
        paths = {"feature_maps": feature_maps, "image_dir": image_dir}
        return _refresh(export_dir, items, paths, remove_missing, allowed)


def _refresh(export_dir, items, paths, remove_missing, allowed):
    folder = pathlib.Path(export_dir) / str(versions(export_dir)[-1])
    old = Version(folder)
    open_store = _open_store(old, paths, allowed)
    with errors_begin_with("items: "):
        columns = _read_items(items, old.image_columns)
        _check_categories(old, items, columns)
    kept, keys, checks, rows, without = _compare(
        old, columns, open_store, remove_missing
    )
    what = "a feature map" if paths["image_dir"] is None else "a readable file"
    counts = (
        f"{len(keys)} images added, {np.count_nonzero(~kept)} removed, "
        f"{np.count_nonzero(kept)} kept, {without} without {what}"
    )
    if kept.all() and not len(keys):
        print(f"nothing to refresh in {folder}: {counts}")
        return None
    if not kept.any() and not len(keys):
        raise InputError("items: no image of the table would be left")
    new = next_version(export_dir)
    with new_folder(new) as temporary:
        old.write(temporary, kept, keys, checks, *rows)
    print(f"{counts} -> {new}")
    return new


def _open_store(version, paths, allowed):
    """Function from images, `[N]` keys and names, to a store of what the CNN takes."""
    takes_pixels = ImageFolder.made(version.cnn)
    needed, other = "feature_maps", "image_dir"
    if takes_pixels:
        needed, other = other, needed
    if paths[needed] is None or paths[other] is not None:
        raise InputError(
            f"{needed}: the model takes {'pixels' if takes_pixels else 'maps'}, and "
            f"needs it instead of {other}. Received: {needed}={paths[needed]}, "
            f"{other}={paths[other]}"
        )
    if takes_pixels:
        size = version.cnn["image_size"]
        folder = paths["image_dir"]
        return lambda keys, images: ImageFolder.open(
            folder, images.unique().to_pylist(), size, **allowed
        )
    with errors_begin_with("feature_maps: "):
        store = FeatureMapStore.open(paths["feature_maps"])
    if store.cnn != version.cnn:
        raise InputError(
            f"feature_maps={store.path}: of another CNN than the model's maps, "
            f"{version.cnn}. Received: {store.cnn}"
        )
    return store.with_names


def _keys(version, columns):
    """Of each item: keys of its image and its (image, category), and the image's check.

    All are int64 `[N]`.

    Args:
        version: `Version`.
        columns: name → Arrow array, of `_read_items`.
    """
    found = [np.zeros((3, 0), np.int64)]
    for start in range(0, len(columns["image"]), CHUNK):
        chunk = {
            name: tf.constant(_to_numpy(column.slice(start, CHUNK)))
            for name, column in columns.items()
        }
        images, checks = ids.image_keys(chunk["image"]), ids.to_checks(chunk["image"])
        found.append(np.stack([images, version.image_keys(chunk), checks]))
    return np.concatenate(found, axis=1)


def _of_one_key(version, images, keys, checks):
    """One item of each (image, category), and images whose keys others have.

    An image that the table has keeps its key; among others it is the most frequent.

    Args:
        version: `Version`.
        images: of `_keys`.
        keys: likewise.
        checks: likewise.

    Returns:
        `(items, left_out)`: int64, the first in the order of their keys.
    """
    pairs = pd.DataFrame({"key": keys, "check": checks, "item": np.arange(len(keys))})
    pairs = pairs[images != ids.NO_IMAGE].groupby(["key", "check"]).item
    pairs = pairs.agg(["first", "size"]).reset_index()
    is_known = np.zeros(len(pairs), bool)
    if version.checks is not None:
        place = ids.find(version.keys, pairs.key.to_numpy()).numpy()
        same = version.checks[np.maximum(place, 0)] == pairs.check
        is_known = ((place >= 0) & same).to_numpy()
        pairs.loc[(place >= 0) & ~same, "size"] = 0
    order = np.lexsort((-pairs["size"], ~is_known, pairs.key))
    pairs = pairs.iloc[order]
    has_key = (~pairs.key.duplicated() & (pairs["size"] > 0)).to_numpy()
    first = pairs["first"].to_numpy()
    return first[has_key], first[~has_key]


def _compare(version, columns, open_store, remove_missing):
    """What becomes of a table.

    Args:
        version: `Version`.
        columns: of `_read_items`.
        open_store: of `_open_store`.
        remove_missing: as of `refresh`.

    Returns:
        `(kept, keys, checks, rows, without)`: bool `[P]`, the rows to keep; int64 `[N]`
        sorted and `[N]`, and `Version.encode_images`, the rows to add; and the number
        of pairs that are not in the table and have no feature map, or no readable
        image.
    """
    images, keys, checks = _keys(version, columns)
    items, left_out = _of_one_key(version, images, keys, checks)
    for item in left_out[:1]:
        print(
            f"warning: items: {columns['image'][item].as_py()!r} is no image, because "
            f"another one has the same 64-bit key ({len(left_out)} such)"
        )
    images, keys, checks = images[items], keys[items], checks[items]
    kept = np.ones(len(version.keys), bool)
    if remove_missing:
        kept = ids.find(keys, version.keys).numpy() >= 0
    absent = ids.find(version.keys, keys).numpy() < 0
    store = open_store(images[absent], columns["image"].take(items[absent]))
    rows = store.find(images).numpy()
    new = np.flatnonzero(absent & (rows > 0))
    categories = None
    if "category" in columns:
        categories = _to_numpy(columns["category"].take(items[new]))
    encoded = version.encode_images(store, rows[new], categories)
    return kept, keys[new], checks[new], encoded, np.count_nonzero(absent) - len(new)


def _read_items(items, specs):
    """The columns of a catalogue that a signature takes; name → Arrow array."""
    strings = [name for name, spec in specs.items() if spec.dtype == tf.string]
    table = read_table(items, list(specs), strings)
    columns = {}
    for name, spec in specs.items():
        column, dtype = table[name].combine_chunks(), ARROW_TYPES[spec.dtype]
        with errors_begin_with(f"{items}: "):
            columns[name], bad = convert(name, column, dtype)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"{items}: column {name}: the model has {spec.dtype.name}. Received: "
                f"{column[row].as_py()!r} in row {row + 1}"
            )
    return columns


def _check_categories(version, items, columns):
    """Raises `InputError` for numbers where the model's categories are other text.

    Their rows would all be of an unknown category, which no request asks for.
    """
    spec = version.image_columns.get("category")
    if spec is None or spec.dtype != tf.string:
        return
    if not is_number(read_types(items, ["category"])["category"]):
        return
    found = columns["category"].unique()
    asked = pa.array(["", *found.filter(pc.not_equal(found, "")).to_pylist()])
    named = {
        "image": tf.fill([len(asked)], "x"),
        "category": tf.constant(_to_numpy(asked)),
    }
    keys = version.image_keys(named)
    if len(keys) > 1 and (keys == keys[0]).all():
        raise InputError(
            "column category: numbers, none of which the model knows; write them as in "
            f"the catalogue that it was trained with. Received: {asked[1]}"
        )


def _to_numpy(column):
    return column.to_numpy(zero_copy_only=False)
