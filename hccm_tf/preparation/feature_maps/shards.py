"""Encodes a catalogue's images into the shards of a feature-map store.

A worker gets a shard's number and reads what it needs from the store's work folder. A
shard is a folder that appears when it is whole, so an interrupted run loses only the
shards that it was about.
"""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import shutil
import tempfile
import zlib

import numpy as np
import pyarrow.parquet as pq

from hccm_tf.atomic import publish
from hccm_tf.data.feature_maps import dequantize
from hccm_tf.errors import InputError
from hccm_tf.images.read import decode_images
from hccm_tf.preparation.feature_maps.fixed_cnn import load_encoder
from hccm_tf.progress import advance

BATCH_SIZE = 64
NAMES, REPORT = "images.parquet", "shard.json"
ATTEMPT = "attempt-"


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How the images of a run become feature maps.

    Args:
        work: folder of the run that all workers see, with the images' names, one row
            group a shard; the folder above it is the store's, with the fixed CNN.
        image_dir: folder of the images.
        max_pixels: see `decode_image`.
        backbone, image_size, layer, weights_sha256: see `load_encoder`.
        dtype: `"float16"` or `"int8"`.
        allow_links, allow_private_urls: see `hccm_tf.images.places.image_content`.
    """

    work: pathlib.Path
    image_dir: str | None
    max_pixels: int
    backbone: str
    image_size: int
    layer: str
    dtype: str
    weights_sha256: str
    allow_links: bool = False
    allow_private_urls: bool = False


def shard_folder(work, shard):
    """The folder that a shard is made in."""
    return work / f"shard-{shard:05d}"


def remove_attempts(work):
    """Removes what a killed run left of shards that it was about."""
    for left in work.glob(f"{ATTEMPT}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _attempt(folder):
    """Yields a folder of its own: a runner may have two workers at one shard."""
    attempt = pathlib.Path(tempfile.mkdtemp(prefix=ATTEMPT, dir=folder.parent))
    try:
        yield attempt
        publish(attempt, folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def quantize_maps(maps):
    """Rounds each channel of each map to 255 steps.

    Args:
        maps: float32 `[N, h, w, c]`.

    Returns:
        `(steps, scales)`: int8 `[N, h, w, c]` and float16 `[N, 1, 1, c]`, their product
        within half a scale of `maps`.
    """
    exact = np.abs(maps).max((1, 2), keepdims=True) / np.float32(127)
    scales = exact.astype(np.float16)
    # Rounded up: a scale that is too small, as they are near 0, would cut maxima off.
    scales = np.where(scales < exact, np.nextafter(scales, np.float16(np.inf)), scales)
    steps = maps / np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(steps).astype(np.int8), scales


def stored_form(maps, dtype):
    """Feature maps in the form in which a store has them.

    Args:
        maps: float32 `[N, h, w, c]`.
        dtype: `"float16"` or `"int8"`.

    Returns:
        `(arrays, maps)`: what to write, a list, and the float16 maps that it is, which
        are not finite where those given overflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "int8":
            arrays = quantize_maps(maps)
        else:
            arrays = [maps.astype(np.float16)]
    return arrays, np.asarray(dequantize(*arrays))


def _read_pixels(names, encoding, skipped):
    decoded = decode_images(
        names,
        encoding.image_dir,
        encoding.image_size,
        encoding.max_pixels,
        ahead=2 * BATCH_SIZE,
        allow_links=encoding.allow_links,
        allow_private_urls=encoding.allow_private_urls,
    )
    for place, (pixels, reason) in enumerate(decoded):
        if reason is None:
            yield pixels
        else:
            skipped.append((place, reason))
        advance(1)


def _encode_batches(pixels, encoding):
    """Yields `(arrays, maps)`: what to write and the float16 maps that it is."""
    encode = load_encoder(
        encoding.work.parent,
        encoding.weights_sha256,
        encoding.backbone,
        encoding.image_size,
        encoding.layer,
    )
    # While the CNN runs, the next images are decoded.
    while batch := list(itertools.islice(pixels, BATCH_SIZE)):
        arrays, maps = stored_form(encode(np.stack(batch)).numpy(), encoding.dtype)
        if not np.isfinite(maps).all():
            raise InputError(
                f"layer={encoding.layer}: its feature maps overflow float16; name "
                "another layer"
            )
        yield arrays, maps


def write_shard(encoding, shard):
    """Encodes the images of one shard, unless that is done.

    Writes the folder of `shard_folder` with a raw file for each array, named 0 and 1,
    and `shard.json`: number of maps, CRC-32 of the files, each channel's sum and sum of
    squares, and place and reason of the images that were skipped.

    Args:
        encoding: `Encoding`.
        shard: its number, which is that of its row group of names.

    Raises:
        InputError: if a feature map overflows float16.
    """
    folder = shard_folder(encoding.work, shard)
    if folder.exists():
        return
    table = pq.ParquetFile(encoding.work / NAMES).read_row_group(shard)
    names = table["image"].to_pylist()
    with _attempt(folder) as attempt:
        skipped = []
        pixels = _read_pixels(names, encoding, skipped)
        write_maps(attempt, _encode_batches(pixels, encoding), skipped)


def write_maps(folder, batches, skipped=()):
    """Writes the files of a shard, see `write_shard`.

    Args:
        folder: `pathlib.Path`, an empty folder.
        batches: iterable of `stored_form`.
        skipped: `(place, reason)` of the images without a map, when `batches` is at
            its end.
    """
    rows, crc32, moments = 0, {}, np.float64(0)
    for arrays, maps in batches:
        for number, array in enumerate(arrays):
            content = array.tobytes()
            with open(folder / str(number), "ab") as handle:
                handle.write(content)
            crc32[number] = zlib.crc32(content, crc32.get(number, 0))
        values = maps.astype(np.float64)
        rows += len(maps)
        moments = moments + [values.sum((0, 1, 2)), np.square(values).sum((0, 1, 2))]
    report = {
        "rows": rows,
        "crc32": list(crc32.values()),
        "moments": moments.tolist(),
        "skipped": list(skipped),
    }
    (folder / REPORT).write_text(json.dumps(report))
