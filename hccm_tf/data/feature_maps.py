"""The feature-map store: one map of the fixed CNN for each image, on disk.

A store is a folder with
- `feature_maps-00000-of-00003.f16`: raw little-endian float16 maps `[rows, h, w, c]`
  without a header, so that a graph operation can map the file into memory; or
  `feature_maps-00000-of-00003.i8` and `scales-00000-of-00003.f16`: int8 maps and the
  float16 `[rows, 1, 1, c]` by which to multiply them;
- `images.parquet`: columns `image`, `key` (sorted, see `hccm_tf.data.ids`) and `row`;
- `feature_maps.json`: format, backbone, layer, hash of the weights or of the user's own
  file, input size (of imported maps the encoder's name only, as `backbone`), shape,
  dtype, count, CRC-32 of each shard file, and of each channel the moments, mean and
  standard deviation.
"""

import dataclasses
import math
import pathlib
import zlib

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epy

from hccm_tf import formats
from hccm_tf.data import ids
from hccm_tf.data.image_store import ImageStore
from hccm_tf.data.mapped import mapped_array
from hccm_tf.data.shard_check import check_file, check_file_once, check_moments
from hccm_tf.errors import InputError
from hccm_tf.files import is_remote, read_json
from hccm_tf.quiet import quiet_float16

with epy.lazy_imports():
    import tensorflow as tf

METADATA = "feature_maps.json"
MAP_DTYPES = ("float16", "int8")
IMAGES = "images.parquet"
SKIPPED = "skipped.csv"
# Patterns of the names of what a training reads of a store.
NEEDED = (METADATA, IMAGES, "feature_maps-*", "scales-*")
EXTRACT = "python -m tfrecords_tools.extract_feature_maps"


def shard_files(dtype, shape, rows, shard, count):
    """Files of one shard.

    Args:
        dtype: `"float16"` or `"int8"`.
        shape: `(h, w, c)` of one map.
        rows: number of maps in the shard.
        shard: number of the shard.
        count: number of shards.

    Returns:
        Dict from name to `(tf.DType, shape)`, the maps first.
    """
    place = f"{shard:05d}-of-{count:05d}"
    if dtype == "float16":
        return {f"feature_maps-{place}.f16": (tf.float16, (rows, *shape))}
    return {
        f"feature_maps-{place}.i8": (tf.int8, (rows, *shape)),
        f"scales-{place}.f16": (tf.float16, (rows, 1, 1, shape[-1])),
    }


def dequantize(maps, scales=None):
    """The float16 maps that the arrays of a shard stand for, in graph operations.

    Args:
        maps: float16 `[N, h, w, c]`; int8 with `scales`.
        scales: float16 `[N, 1, 1, c]`, or `None`.

    Returns:
        float16 tensor `[N, h, w, c]`.
    """
    return maps if scales is None else tf.cast(maps, tf.float16) * scales


def _read_metadata(path):
    try:
        metadata = read_json(path)
        found = metadata.get("format")
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; make the feature maps with {EXTRACT}"
        ) from error
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not JSON of feature maps ({error}); extract them again"
        ) from error
    formats.check_format(path, found, formats.MAPS, EXTRACT)
    return metadata


@dataclasses.dataclass(frozen=True)
class FeatureMapStore(ImageStore):
    """Read access to a feature-map store.

    Args:
        path: the folder.
        metadata: content of `feature_maps.json`.
        keys: int64 `[count]`, sorted image keys.
        rows: int64 `[count]`, the row of each key over all shards.
    """

    path: pathlib.Path
    metadata: dict
    keys: np.ndarray
    rows: np.ndarray

    cnn_names = ("backbone", "layer", "weights_sha256", "image_size", "shape")

    @classmethod
    def open(cls, path):
        """Opens the store at `path`; `InputError` names what is missing."""
        if is_remote(path):
            raise InputError(
                f"{path}: feature maps are mapped from a disk; copy the folder there, "
                "as train_main.py does with --cache_dir"
            )
        path = pathlib.Path(path)
        metadata = _read_metadata(path / METADATA)
        images = path / IMAGES
        try:
            table = pq.read_table(images, columns=["key", "row"])
            dtype, _, _ = (metadata[k] for k in ("dtype", "shard_rows", "shape"))
            check_moments(path / METADATA, metadata)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: {METADATA} or {images.name} is damaged ({error}); extract "
                "the feature maps again"
            ) from error
        if dtype not in MAP_DTYPES:
            raise InputError(
                f"{path / METADATA}: dtype is one of {MAP_DTYPES}. Received: {dtype}; "
                "extract the feature maps again"
            )
        store = cls(path, metadata, table["key"].to_numpy(), table["row"].to_numpy())
        for files in store.shards:
            for file, (dtype, shape) in files.items():
                expected = dtype.size * math.prod(shape)
                size = file.stat().st_size if file.exists() else None
                if size != expected:
                    raise InputError(
                        f"{file}: expected {expected} bytes, received {size}; "
                        "extract the feature maps again"
                    )
        return store

    def check(self):
        """Reads all shards and compares them with their checksums.

        Raises:
            InputError: if a file differs from what was written; names it.
        """
        for files in self.shards:
            self._check(files, check_file)

    def check_once(self, rows=None):
        shards = self.shards
        if rows is not None:
            ends = np.cumsum(self.metadata["shard_rows"])
            rows = np.unique(np.asarray(rows)[np.asarray(rows) > 0])
            touched = np.unique(np.searchsorted(ends, rows - 1, side="right"))
            shards = [shards[number] for number in touched]
        for files in shards:
            self._check(files, check_file_once)

    def _check(self, files, check):
        expected = self.metadata.get("crc32", {})
        for file, (dtype, _) in files.items():
            if file.name not in expected:
                raise InputError(
                    f"{self.path / METADATA}: no crc32 of {file.name}; extract the "
                    "feature maps again"
                )
            check(file, expected[file.name], dtype == tf.float16)

    @property
    def shape(self):
        return tuple(self.metadata["shape"])

    @property
    def cnn(self):
        return {name: self.metadata.get(name) for name in self.cnn_names}

    def checksums(self):
        places = zlib.crc32(np.stack([self.keys, self.rows]))
        moments = zlib.crc32(np.stack([self.channel_mean, self.channel_std]))
        return {
            **self.metadata.get("crc32", {}),
            IMAGES: places,
            METADATA: moments,
        }

    @property
    def channel_mean(self):
        return np.float32(self.metadata["channel_mean"])

    @property
    def channel_std(self):
        return np.float32(self.metadata["channel_std"])

    @property
    def shards(self):
        """Files of each shard: list of dicts from path to `(tf.DType, shape)`."""
        dtype, shard_rows = self.metadata["dtype"], self.metadata["shard_rows"]
        shards = [
            shard_files(dtype, self.shape, rows, shard, len(shard_rows))
            for shard, rows in enumerate(shard_rows)
        ]
        return [{self.path / name: f for name, f in s.items()} for s in shards]

    def standardised_as(self, channel_mean, channel_std):
        channels = {
            "channel_mean": np.asarray(channel_mean).tolist(),
            "channel_std": np.asarray(channel_std).tolist(),
        }
        return dataclasses.replace(self, metadata={**self.metadata, **channels})

    def shuffled(self, seed):
        rows = np.random.default_rng(seed).permutation(self.rows)
        return dataclasses.replace(self, rows=rows)

    def with_names(self, keys, names):
        table = pq.read_table(self.path / IMAGES, columns=["image", "key"])
        own = table["key"].to_numpy()
        place = ids.find(own, keys).numpy()
        found = np.flatnonzero(place >= 0)
        same = pc.equal(table["image"].take(place[found]), names.take(found))
        other = keys[found[~same.to_numpy()]]
        if not other.size:
            return self
        kept = ~np.isin(self.keys, other)
        return dataclasses.replace(self, keys=self.keys[kept], rows=self.rows[kept])

    def find(self, image_keys):
        rows = np.concatenate([[-1], self.rows])
        return tf.gather(rows, ids.find(self.keys, image_keys) + 1) + 1

    def _make_gather(self):
        quiet_float16()
        return self._gather_in_graph

    def _gather_in_graph(self, rows):
        """Maps each shard into memory where it runs; reads the pages of the rows."""
        shard_rows = self.metadata["shard_rows"]
        ends = tf.constant(np.cumsum([0, *shard_rows]), tf.int64)
        shard = tf.searchsorted(ends, rows, side="left", out_type=tf.int32)
        of_shard = tf.dynamic_partition(
            tf.range(tf.size(rows)), shard, num_partitions=len(shard_rows) + 1
        )
        maps = [tf.zeros([tf.size(of_shard[0]), *self.shape], tf.float16)]
        for index, files in enumerate(self.shards):
            place = tf.gather(rows, of_shard[index + 1]) - 1 - ends[index]
            arrays = [mapped_array(file, *form) for file, form in files.items()]
            maps.append(dequantize(*(tf.gather(array, place) for array in arrays)))
        stitched = tf.dynamic_stitch(of_shard, maps)
        return tf.reshape(stitched, [-1, *self.shape])
