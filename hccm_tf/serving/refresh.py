"""Writes the next version of an export with new items and images, without training."""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from hccm_tf.atomic import check_can_make, new_folder, only_writer
from hccm_tf.data.column_names import column_name
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.image_folder import ImageFolder
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.images.places import check_image_dir
from hccm_tf.preparation.column_facts import is_number
from hccm_tf.preparation.examples.column_choice import ARROW_TYPES
from hccm_tf.preparation.examples.log_values import convert
from hccm_tf.preparation.tables import read_table, read_types
from hccm_tf.serving.exported_version import Version
from hccm_tf.serving.model_card import note_refresh
from hccm_tf.serving.refresh_images import refresh_images
from hccm_tf.serving.refresh_items import refresh_items
from hccm_tf.serving.versions import next_version, versions


def refresh(
    export_dir,
    items,
    feature_maps=None,
    remove_missing=False,
    image_dir=None,
    **allowed,
):
    """Writes `export_dir/<version>/`, the newest version with new tables.

    The (image, category) pairs of `items` that the newest version's table lacks, and
    that have a feature map, go through the version's own `encode_images`; the rows that
    the table has are taken over bit by bit, and everything else of the version too. An
    item whose category changed is a new pair. A new photo needs a new name, because a
    pair that the table has is not encoded again. The table of items has the columns of
    those of `items` as they are now.

    Time of the CNN grows with the new pairs only; what is left reads the old version
    once and writes the new one. Peak memory: the old and the new table, the other
    variables, and the columns of `items`.

    Args:
        export_dir: folder of the versions, `saved_models/<name>`.
        items: path of the catalogue, CSV or Parquet: `item_id`, `image`, empty for
            none, `category` and the attributes that the model takes. Other columns are
            not read.
        feature_maps: path of a `FeatureMapStore` of the CNN that the model was trained
            with; `None` for a model that takes pixels, or no images.
        remove_missing: whether to drop rows of items and pairs that `items` does not
            have. By default they are kept, because users' histories show items that are
            no longer sold, and images under the category that they had.
        image_dir: folder of the images, for a model that takes pixels.
        **allowed: see `hccm_tf.images.read.decode_image`.

    Returns:
        `pathlib.Path` of the new version, or `None` if the tables would stay the same.

    Raises:
        InputError: if there is no version with a table below `export_dir`, a folder is
            missing, the feature maps do not fit the model, a column is missing or not
            of the model's type, or the table would be empty.
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
        columns = _read_items(items, old.image_columns | old.item_columns)
        _check_categories(old, items, columns)
    of_images, of_items = (
        {name: columns[name] for name in names}
        for names in (old.image_columns, old.item_columns)
    )
    changed, counts = {}, []
    if of_images:
        changed, count, without = refresh_images(
            old, of_images, open_store, remove_missing
        )
        what = "a feature map" if paths["image_dir"] is None else "a readable file"
        such = f", such as {without[0]!r}" if without else ""
        counts.append(f"{count}, {len(without)} without {what}{such}")
    if of_items:
        found, count = refresh_items(old, of_items, remove_missing)
        changed |= found
        counts.append(count)
    counts = "; ".join(counts)
    if not changed:
        print(f"nothing to refresh in {folder}: {counts}")
        return None
    new = next_version(export_dir)
    with new_folder(new) as temporary:
        old.write(temporary, changed)
        catalogue = pathlib.Path(items).name
        note_refresh(temporary, f"version {folder.name} with `{catalogue}`: {counts}")
    print(f"{counts} -> {new}")
    return new


def _open_store(version, paths, allowed):
    """Function from images, `[N]` keys and names, to a store of what the CNN takes."""
    if not version.has_images:
        for name, path in paths.items():
            if path is not None:
                raise InputError(f"{name}: the model takes no images. Received: {path}")
        return None
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

        def open_folder(keys, images):
            images = images.unique().to_pylist()
            check_image_dir(images, folder)
            return ImageFolder.open(folder, images, size, **allowed)

        return open_folder
    with errors_begin_with("feature_maps: "):
        store = FeatureMapStore.open(paths["feature_maps"])
    if store.cnn != version.cnn:
        raise InputError(
            f"feature_maps={store.path}: of another CNN than the model's maps, "
            f"{version.cnn}. Received: {store.cnn}"
        )
    return store.with_names


def _read_items(items, specs):
    """The columns of a catalogue that signatures take, by the names of these.

    Args:
        items: path of the catalogue.
        specs: name → `tf.TensorSpec`.

    Returns:
        dict name → Arrow array.
    """
    sources = {name: column_name(name) for name in specs}
    strings = [sources[n] for n, spec in specs.items() if spec.dtype == tf.string]
    table = read_table(items, list(sources.values()), strings)
    columns = {}
    for name, spec in specs.items():
        column = table[sources[name]].combine_chunks()
        dtype = ARROW_TYPES[spec.dtype.name]
        with errors_begin_with(f"{items}: "):
            columns[name], bad = convert(sources[name], column, dtype)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"{items}: column {sources[name]}: the model has {spec.dtype.name}. "
                f"Received: {column[row].as_py()!r} in row {row + 1}"
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
        "category": tf.constant(asked.to_numpy(False)),
    }
    keys = version.image_keys(named)
    if len(keys) > 1 and (keys == keys[0]).all():
        raise InputError(
            "column category: numbers, none of which the model knows; write them as in "
            f"the catalogue that it was trained with. Received: {asked[1]}"
        )
