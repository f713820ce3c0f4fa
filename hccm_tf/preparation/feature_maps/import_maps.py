"""Makes a feature-map store of vectors, patch tokens or maps of another encoder."""

import dataclasses
import itertools
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa

from hccm_tf.atomic import new_folder
from hccm_tf.data import ids
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.errors import InputError
from hccm_tf.preparation.feature_maps.assembly import assemble
from hccm_tf.preparation.feature_maps.extract import new_images
from hccm_tf.preparation.feature_maps.layout import Layout
from hccm_tf.preparation.feature_maps.settings import IMPORTED, write_names
from hccm_tf.preparation.feature_maps.shards import (
    shard_folder,
    stored_form,
    write_maps,
)
from hccm_tf.preparation.feature_maps.vector_files import vector_files

LARGEST = float(np.finfo(np.float16).max)
# Of the length of a map: what other machines and number formats make of it.
SAME_MAP = 0.05


def import_feature_maps(
    input, output_dir, encoder=None, extend=None, dtype=None, **layout
):
    """Writes the feature-map store of `hccm_tf.data.feature_maps`.

    A vector `[D]` becomes a map of one position, `[1, 1, D]`. Two stores are of one
    encoder if their names say so; where `extend` has an image of `input` already, its
    maps must be alike, and it keeps its own.

    Args:
        input: a `.parquet` or `.npz` file, see `VectorFile`, or a folder of them.
        output_dir: folder to write.
        encoder: name of what has made the arrays; that of the old store with `extend`.
        extend: folder of an old store whose maps the new one takes over, or `None`.
        dtype: `"float16"`, the default, or `"int8"`.
        **layout: fields of `Layout`.

    Raises:
        InputError: if an image occurs twice, an array is not like the others or not
            finite, or the encoder is another one; names file and row.
    """
    old = None if extend is None else FeatureMapStore.open(extend)
    told = _told(encoder, dtype, old)
    files, layout = vector_files(input), Layout(**layout)
    read = [file.names() for file in files]
    starts = np.cumsum([0, *map(len, read)])
    images = pa.chunked_array(read, pa.string()).to_numpy().astype(object)
    _check_names(images, files, starts)
    new, names, keys, order = new_images(images, old)
    with new_folder(output_dir) as folder:
        work = folder / "work"
        work.mkdir()
        rows = write_names(work, new)
        is_new = pd.Index(new).get_indexer(images) >= 0
        batches = _Batches(files, starts, layout, old, images, is_new)
        shape = _write_shards(work, batches, rows, told["dtype"])
        metadata = {**told, "shape": shape}
        count, _ = assemble(folder, work, old, names, keys, order, metadata)
        shutil.rmtree(work)
    print(f"{count} feature maps {tuple(shape)} of {told['backbone']} -> {output_dir}")


def _told(encoder, dtype, old):
    """What the JSON of a store says of its encoder, dict."""
    given = {"backbone": encoder, "dtype": dtype}
    if old is None:
        if not encoder:
            raise InputError(
                "encoder: the name of what has made the arrays, such as clip-vit-b32; "
                f"a run refuses the maps of another one. Received: {encoder}"
            )
        settings = {**given, "dtype": dtype or "float16"}
    else:
        if old.metadata.get("weights") != IMPORTED:
            raise InputError(
                f"extend: the maps of {old.path} were not imported; "
                "extract_feature_maps extends it"
            )
        settings = {name: old.metadata[name] for name in given}
        for name, value in given.items():
            if value not in (None, settings[name]):
                name = {"backbone": "encoder"}.get(name, name)
                raise InputError(
                    f"{name}={value} contradicts the old store, {old.path}, of "
                    f"{', '.join(settings.values())}: import into a new store"
                )
    of_cnn = dict.fromkeys(("image_size", "layer", "weights_sha256"))
    return {**settings, "weights": IMPORTED, **of_cnn}


def _row(files, starts, row):
    """File and row, counted from 1, of a row of all files; str."""
    file = int(np.searchsorted(starts, row, side="right")) - 1
    return f"{files[file].path}: row {row - starts[file] + 1}"


def _check_names(images, files, starts):
    if not len(images):
        raise InputError(f"{files[0].path}: no row, as all of the input")
    column = pd.Series(images, dtype=object)
    for bad, problem in (
        (column.isna() | (column == ""), "no name of an image"),
        (column.duplicated(), "an image for the second time"),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"{_row(files, starts, row)}: {problem}. Received: {images[row]}"
            )


@dataclasses.dataclass(frozen=True)
class _Batches:
    """The maps of an input, float32 `[N, h, w, c]`, of images that are new.

    Args:
        files: list of `VectorFile`.
        starts: int64 `[F + 1]`, rows before each file.
        layout: `Layout`.
        old: `FeatureMapStore` that is extended, or `None`.
        images: object `[R]`, names of all rows.
        is_new: bool `[R]`, whose maps are taken.
    """

    files: list
    starts: np.ndarray
    layout: Layout
    old: FeatureMapStore | None
    images: np.ndarray
    is_new: np.ndarray

    def __iter__(self):
        shape = None if self.old is None else self.old.shape
        for file, start, end in zip(
            self.files, self.starts, self.starts[1:], strict=False
        ):
            for arrays in file.batches():
                if start + len(arrays) > end:
                    raise InputError(f"{file.path}: more arrays than names")
                maps = self._maps(arrays, start, shape)
                shape = maps.shape[1:]
                rows = slice(start, start + len(maps))
                self._compare(maps, rows)
                yield maps[self.is_new[rows]]
                start += len(maps)
            if start != end:
                raise InputError(f"{file.path}: fewer arrays than names")

    def _maps(self, arrays, start, shape):
        row = _row(self.files, self.starts, start)
        try:
            maps = self.layout.maps(arrays)
        except InputError as error:
            raise InputError(f"{error}, in {row}") from error
        if shape is not None and maps.shape[1:] != shape:
            what = "of the old store" if self.old is not None else "before it"
            raise InputError(
                f"{row}: a map of another shape than those {what}, {shape}. Received: "
                f"{maps.shape[1:]}"
            )
        # A NaN compares false.
        bad = ~(np.abs(maps).max((1, 2, 3)) <= LARGEST)
        if bad.any():
            raise InputError(
                f"{_row(self.files, self.starts, start + int(np.argmax(bad)))}: a "
                f"value that is not finite, or above {LARGEST:g}, float16's largest"
            )
        return maps

    def _compare(self, maps, rows):
        """Raises an `InputError` if an image has another map than it had."""
        if self.old is None:
            return
        known = np.flatnonzero(~self.is_new[rows])
        if not known.size:
            return
        keys = ids.image_keys(self.images[rows][known].astype(str))
        had = self.old.gather(self.old.find(keys)).numpy().astype(np.float32)
        axes = (1, 2, 3)
        change = np.sqrt(np.square(maps[known] - had).sum(axes))
        bad = change > SAME_MAP * np.sqrt(np.square(had).sum(axes))
        if bad.any():
            row = rows.start + int(known[np.argmax(bad)])
            raise InputError(
                f"{_row(self.files, self.starts, row)}: image {self.images[row]} has "
                f"another map than in the old store, {self.old.path}: its encoder is "
                "another one, import into a new store; or leave the image out"
            )


def _write_shards(work, batches, rows, dtype):
    """Writes the shards of a run; the shape of its maps."""
    shape = None

    def forms(pieces):
        nonlocal shape
        for _, maps in pieces:
            shape = maps.shape[1:]
            if dtype == "int8" and shape[:2] == (1, 1):
                raise InputError(
                    "dtype=int8: it has a scale for each channel of a map, and of one "
                    "position becomes larger by that; leave it out"
                )
            yield stored_form(maps, dtype)

    for shard, pieces in itertools.groupby(_cut(batches, rows), lambda cut: cut[0]):
        folder = shard_folder(work, shard)
        folder.mkdir()
        write_maps(folder, forms(pieces))
    return shape


def _cut(batches, rows):
    """Yields `(shard, maps)`, which may be none, cut where the shards end."""
    start = 0
    for batch in batches:
        places = range(rows - start % rows, len(batch), rows)
        for piece in np.split(batch, places):
            yield start // rows, piece
            start += len(piece)
