"""Feature-map stores of random maps, for benchmarks."""

import json
import zlib

import numpy as np
import pandas as pd

from hccm_tf import formats
from hccm_tf.data import ids
from hccm_tf.data.feature_maps import IMAGES, METADATA, shard_files

# MobileNetV3-Small at 224 pixels, cut after its default layer.
MAP_SHAPE = (7, 7, 96)
SHARD_ROWS, CHUNK = 100_000, 10_000


def make_store(folder, images):
    """Writes a float16 store with a random map, not negative, for each image.

    Args:
        folder: `pathlib.Path`, made.
        images: list of distinct image names.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    sizes = [
        min(SHARD_ROWS, len(images) - s) for s in range(0, len(images), SHARD_ROWS)
    ]
    crc32 = {}
    for shard, rows in enumerate(sizes):
        (name,) = shard_files("float16", MAP_SHAPE, rows, shard, len(sizes))
        with open(folder / name, "wb") as file:
            for start in range(0, rows, CHUNK):
                shape = (min(CHUNK, rows - start), *MAP_SHAPE)
                maps = rng.random(shape, np.float32).astype(np.float16)
                maps.tofile(file)
                crc32[name] = zlib.crc32(maps, crc32.get(name, 0))
    table = pd.DataFrame({"image": images, "key": ids.image_keys(images).numpy()})
    table["row"] = np.arange(len(images))
    table.sort_values("key").to_parquet(folder / IMAGES)
    metadata = {
        "format": formats.MAPS,
        "dtype": "float16",
        "shape": MAP_SHAPE,
        "shard_rows": sizes,
        "count": len(images),
        "crc32": crc32,
        "channel_mean": [0.5] * MAP_SHAPE[-1],
        "channel_std": [12**-0.5] * MAP_SHAPE[-1],
    }
    (folder / METADATA).write_text(json.dumps(metadata))
