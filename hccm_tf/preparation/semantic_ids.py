"""Semantic ids: codes of images that alike ones share, as attributes of items."""

import csv
import pathlib
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epy

from hccm_tf.atomic import check_can_make, new_file
from hccm_tf.data import ids
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.errors import InputError
from hccm_tf.preparation.centroids import LEVELS, Centroids
from hccm_tf.preparation.tables import (
    is_parquet,
    pieces,
    read_batches,
    read_types,
    table_files,
)

with epy.lazy_imports():
    import tensorflow as tf

COLUMNS = tuple(f"semantic_{level}" for level in range(1, LEVELS + 1))
NUM_CODES = 256
# With fewer, a code says little more than the image's id.
IMAGES_PER_CODE = 8


def write_semantic_ids(
    feature_maps, items, output, centroids=None, num_codes=NUM_CODES, seed=0
):
    """Writes a catalogue with the codes of its images, in the columns `COLUMNS`.

    An item without an image in the store has none. The centroids are written beside
    it, see `centroids_path`.

    Args:
        feature_maps: path of a `FeatureMapStore`.
        items: path of the catalogue, CSV or Parquet.
        output: path of a file of the same kind.
        centroids: path of the centroids of an earlier call, which give the same images
            the same codes; `None` to fit them.
        num_codes: see `Centroids.fit`, as the next.
        seed: int.

    Raises:
        InputError: if the catalogue has the columns already, centroids would be
            replaced, or they are of another CNN.
    """
    types = _check(items, output)
    if centroids is None and centroids_path(output).exists():
        raise InputError(
            f"output: {centroids_path(output)} is there already; name it as centroids, "
            "which keeps the codes of a trained model, or remove it"
        )
    store = FeatureMapStore.open(feature_maps)
    if centroids is None:
        found = Centroids.fit(store, num_codes, seed)
        _warn_of_few(len(store.rows), found.centroids.shape[1])
    else:
        found = Centroids.load(centroids)
        if found.cnn != store.cnn:
            raise InputError(
                f"centroids={centroids}: of another CNN than feature_maps="
                f"{feature_maps}, {store.cnn}. Received: {found.cnn}"
            )
    codes, explained = found.encode(store)
    write = _write_parquet if is_parquet(str(output)) else _write_csv
    pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
    with new_file(output) as temporary:
        batches = _with_codes(items, types, store, codes)
        with_code, count = write(temporary, types, batches)
        if centroids is None:
            # Not before the codes are whole: it would be kept by the next call.
            found.save(centroids_path(output))
    print(
        f"{with_code} of {count} items have {', '.join(COLUMNS)}, of "
        f"{found.centroids.shape[1]} codes each, which explain "
        f"{', '.join(f'{share:.0%}' for share in explained)} of the images' variance "
        f"-> {output}"
    )


def _warn_of_few(images, codes):
    advised = max(images // IMAGES_PER_CODE, 2)
    if round(images / codes) < IMAGES_PER_CODE and advised < codes:
        print(
            f"{codes} codes for {images} images: each has about {images / codes:.1f} "
            "and says little more than an image's id; with "
            f"--num_codes={advised} it has {images / advised:.1f}",
            file=sys.stderr,
        )


def centroids_path(output):
    """Where the centroids of a catalogue are: `items.centroids.npz` of `items.csv`."""
    return pathlib.Path(output).with_suffix(".centroids.npz")


def _check(items, output):
    """The types of the catalogue's columns, those of CSV as the text that they are."""
    types = read_types(items, ["image"], strings=["image"])
    twice = sorted(set(COLUMNS) & set(types))
    if twice:
        raise InputError(
            f"items: {items} has {', '.join(twice)} already; give the catalogue "
            "without them"
        )
    suffix = pathlib.Path(output).suffix
    for file in table_files(items):
        if pathlib.Path(file).suffix != suffix:
            raise InputError(
                f"output: a file of the kind of {file}, of items. Received: {output}"
            )
    check_can_make(output)
    return types if is_parquet(str(output)) else dict.fromkeys(types, pa.string())


def _with_codes(items, types, store, codes):
    """Yields the catalogue's record batches, each with its codes as Arrow arrays."""
    for piece in pieces(items):
        for _, batch in read_batches(piece, types):
            names = pc.fill_null(batch["image"], "").to_numpy(zero_copy_only=False)
            keys = ids.image_keys(tf.constant(names.astype(object), tf.string))
            found = codes[store.find(keys).numpy()]
            missing = found < 0
            yield (
                batch,
                [
                    pa.array(found[:, level], pa.int32(), mask=missing[:, level])
                    for level in range(LEVELS)
                ],
            )


def _write_parquet(path, types, batches):
    """Writes record batches with their codes; the numbers of codes and of rows."""
    fields = [*types.items(), *((name, pa.int32()) for name in COLUMNS)]
    with_code = count = 0
    with pq.ParquetWriter(path, pa.schema(fields)) as writer:
        for batch, codes in batches:
            columns = [*batch.columns, *codes]
            writer.write_batch(pa.record_batch(columns, schema=writer.schema))
            with_code += len(batch) - codes[0].null_count
            count += len(batch)
    return with_code, count


def _write_csv(path, types, batches):
    """The same as CSV, in which text stays as it is."""
    with_code = count = 0
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow([*types, *COLUMNS])
        for batch, codes in batches:
            columns = (column.to_pylist() for column in (*batch.columns, *codes))
            writer.writerows(zip(*columns, strict=True))
            with_code += len(batch) - codes[0].null_count
            count += len(batch)
    return with_code, count
