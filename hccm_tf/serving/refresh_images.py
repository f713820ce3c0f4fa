"""What becomes of a version's table of images when the catalogue changes."""

import numpy as np
import pandas as pd

from hccm_tf.data import ids
from hccm_tf.errors import InputError
from hccm_tf.serving.exported_version import changed_images, chunks


def refresh_images(version, columns, open_store, remove_missing):
    """Compares a catalogue with the table of images, and encodes what is new.

    Args:
        version: `Version` with a table of images.
        columns: name → Arrow array, `image_columns` of the catalogue.
        open_store: function from images, `[N]` keys and names, to a store of what the
            CNN takes.
        remove_missing: whether pairs that the catalogue does not have are dropped.

    Returns:
        `(changed, counts, without)`: what `Version.write` takes, `{}` if the table
        stays the same; what became of the images, str; and the names of those that are
        not in it, because they lack what the CNN takes.

    Raises:
        InputError: if the table would be empty.
    """
    kept, keys, checks, rows, without = _compare(
        version, columns, open_store, remove_missing
    )
    counts = (
        f"{len(keys)} images added, {np.count_nonzero(~kept)} removed, "
        f"{np.count_nonzero(kept)} kept"
    )
    if kept.all() and not len(keys):
        return {}, counts, without
    if not kept.any() and not len(keys):
        raise InputError("items: no image of the table would be left")
    changed = changed_images(version.keys, kept, keys, checks, *rows)
    return changed, counts, without


def _keys(version, columns):
    """Of each item: keys of its image and its (image, category), and the image's check.

    All are int64 `[N]`.

    Args:
        version: `Version`.
        columns: as of `refresh_images`.
    """
    found = [np.zeros((3, 0), np.int64)]
    for chunk in chunks(columns):
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
        columns: as of `refresh_images`.
        open_store: likewise.
        remove_missing: likewise.

    Returns:
        `(kept, keys, checks, rows, without)`: bool `[P]`, the rows to keep; int64 `[N]`
        sorted and `[N]`, and `Version.encode_images`, the rows to add; and the names
        of images of pairs that are not in the table and have no feature map, or are not
        readable.
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
        categories = columns["category"].take(items[new]).to_numpy(False)
    encoded = version.encode_images(store, rows[new], categories)
    without = columns["image"].take(items[absent & (rows == 0)]).to_pylist()
    return kept, keys[new], checks[new], encoded, without
