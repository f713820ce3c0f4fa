"""The feature-map store: one float16 map of the fixed CNN for each image, on disk.

A store is a folder with
- `feature_maps-00000-of-00003.f16`: raw little-endian float16 maps `[rows, h, w, c]`
  without a header, so that a graph operation can map the file into memory;
- `images.parquet`: columns `image`, `key` (sorted, see `hccm_tf.ids`) and `row`;
- `feature_maps.json`: backbone, layer, hash of the weights, input size, shape, dtype,
  count, mean and standard deviation of each channel.
"""

import dataclasses
import json
import pathlib

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf

from hccm_tf import ids
from hccm_tf.errors import InputError

METADATA = "feature_maps.json"


@dataclasses.dataclass(frozen=True)
class FeatureMapStore:
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

    @classmethod
    def open(cls, path):
        """Opens the store at `path`; `InputError` names what is missing."""
        path = pathlib.Path(path)
        try:
            metadata = json.loads((path / METADATA).read_text())
        except FileNotFoundError as error:
            raise InputError(
                f"{path / METADATA}: no such file; make the feature maps with "
                "python -m tfrecords_tools.extract_feature_maps"
            ) from error
        except ValueError as error:
            raise InputError(f"{path / METADATA}: not JSON: {error}") from error
        images = path / "images.parquet"
        try:
            table = pq.read_table(images, columns=["key", "row"])
            shard_rows, shape = metadata["shard_rows"], metadata["shape"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: {METADATA} or {images.name} is damaged ({error}); extract "
                "the feature maps again"
            ) from error
        store = cls(path, metadata, table["key"].to_numpy(), table["row"].to_numpy())
        for shard, rows in enumerate(shard_rows):
            file = store.shard_path(shard)
            expected = 2 * rows * int(np.prod(shape))
            size = file.stat().st_size if file.exists() else None
            if size != expected:
                raise InputError(
                    f"{file}: expected {expected} bytes, received {size}; "
                    "extract the feature maps again"
                )
        return store

    @property
    def shape(self):
        """`(h, w, c)` of one map."""
        return tuple(self.metadata["shape"])

    @property
    def channel_mean(self):
        """Mean of each channel over all images and positions, float32 `[c]`."""
        return np.float32(self.metadata["channel_mean"])

    @property
    def channel_std(self):
        """Standard deviation of each channel, float32 `[c]`."""
        return np.float32(self.metadata["channel_std"])

    def shard_path(self, shard):
        """Path of a shard's file."""
        count = len(self.metadata["shard_rows"])
        return self.path / f"feature_maps-{shard:05d}-of-{count:05d}.f16"

    def shuffled(self, seed):
        """A control: the same store with the maps dealt out to other images."""
        rows = np.random.default_rng(seed).permutation(self.rows)
        return dataclasses.replace(self, rows=rows)

    def find(self, image_keys):
        """Row numbers of images, counted from 1; 0 for an image not in the store.

        Args:
            image_keys: int64 tensor of any shape.

        Returns:
            int64 tensor of the same shape.
        """
        rows = np.concatenate([[-1], self.rows])
        return tf.gather(rows, ids.find(self.keys, image_keys) + 1) + 1

    def gather(self, rows):
        """Feature maps of rows as `find` counts them, in graph operations.

        Each shard is mapped into memory where the operation runs; only the pages of
        the rows that are asked for are read.

        Args:
            rows: int64 tensor `[U]`; 0 gives a map of zeros.

        Returns:
            float16 tensor `[U, h, w, c]`.
        """
        shard_rows = self.metadata["shard_rows"]
        ends = tf.constant(np.cumsum([0, *shard_rows]), tf.int64)
        shard = tf.searchsorted(ends, rows, side="left", out_type=tf.int32)
        part = tf.dynamic_partition(
            tf.range(tf.size(rows)), shard, num_partitions=len(shard_rows) + 1
        )
        maps = [tf.zeros([tf.size(part[0]), *self.shape], tf.float16)]
        for index, count in enumerate(shard_rows):
            region = tf.raw_ops.ImmutableConst(
                dtype=tf.float16,
                shape=[count, *self.shape],
                memory_region_name=str(self.shard_path(index)),
            )
            place = tf.gather(rows, part[index + 1]) - 1 - ends[index]
            maps.append(tf.gather(region, place))
        stitched = tf.dynamic_stitch(part, maps)
        return tf.reshape(stitched, [-1, *self.shape])
