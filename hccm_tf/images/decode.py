"""Decodes the content of an image file."""

import contextlib
import ctypes
import io
import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hccm_tf.images.budget import Budget

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# Of Pillow and the formats' libraries, which hold a picture several times.
BYTES_PER_PIXEL = 20
PROGRESSIVE_BYTES = 6
DECODING = Budget(2**28 * max(os.cpu_count(), 4))  # bytes of pixels
LARGE = 2**27
MAX_READS = 2**18
# The largest values of ranges of grey that begin with 0.
GREY_RANGES = (2**8 - 1, 2**16 - 1, 2**32 - 1)
BITS_PER_SAMPLE, SAMPLE_FORMAT = 258, 339  # of TIFF
UNSIGNED = 1


class _Content(io.BytesIO):
    """Ends when it is read in too small pieces.

    Pillow looks for the next part of a JPEG in junk byte by byte.
    """

    reads = 0

    def read(self, size=-1):
        self.reads += 1
        if self.reads > MAX_READS:
            raise ValueError("no image data after so much else")
        return super().read(size)


def _open_image(content):
    """`Image.open` without its limit of pixels, of which a process has only one.

    `decode` has a limit of its own, which may be higher.
    """
    Image.init()
    for name in FORMATS:
        open_format, accept = Image.OPEN[name]
        # A text says why Pillow was built without the format.
        if accept(content[:16]) is True:
            # What only begins like an image of this format.
            with contextlib.suppress(SyntaxError):
                return open_format(_Content(content), "")
    raise UnidentifiedImageError


def decode(content, size, max_pixels):
    """Upright RGB on white; uint8 `[size, size, 3]`.

    Args:
        content: bytes of a file of one of `FORMATS`.
        size: height and width in pixels of the result.
        max_pixels: an image with more pixels is refused before it is decoded.

    Raises:
        Exception: whatever a broken image leads Pillow to.
    """
    with _open_image(content) as opened:
        width, height = opened.size
        if width * height > max_pixels:
            raise ValueError(
                f"{width} × {height} pixels are more than max_pixels={max_pixels}"
            )
        needed = 0
        if opened.info.get("progressive"):
            needed = PROGRESSIVE_BYTES * width * height
        # Of a JPEG, decodes only as many frequencies as the small image shows.
        opened.draft("RGB", (size, size))
        needed += BYTES_PER_PIXEL * opened.width * opened.height
        with DECODING.hold(needed):
            image = _small(opened, size)
            opened.close()
            if needed > LARGE:
                _return_free_memory()
    # Damaged Exif data say nothing about the orientation.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return np.asarray(image)


def _return_free_memory():
    """Gives the system what is free; a thread would keep as much as it ever had."""
    # glibc's, which other systems do not need.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _small(opened, size):
    """An image of `size` × `size` pixels, RGB or, where it is transparent, RGBA."""
    image = opened
    # Pillow's own conversion of these cuts everything above 255 off.
    if opened.mode.startswith("I;16") or (opened.mode, opened.format) == ("I", "PNG"):
        bits = getattr(opened, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]
        image = Image.fromarray((np.asarray(opened) >> (bits - 8)).astype(np.uint8))
    elif opened.mode in ("I", "F"):
        image = Image.fromarray(_to_8_bits(_grey_values(opened)))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image.convert(mode).resize((size, size), Image.Resampling.BILINEAR)


def _grey_values(opened):
    """The values of an image of mode I or F, which has 32 bits."""
    values = np.asarray(opened)
    if opened.mode == "I" and opened.format == "TIFF":
        # Pillow reads all of them as signed.
        if opened.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED:
            values = values.view(np.uint32)
    return values


def _to_8_bits(values):
    """Grey of more bits, or of floats; uint8.

    White is the end of the smallest range that holds all values: 1 of floats, 255,
    65,535, or 4,294,967,295. Files do not say it. Below 0 is black.
    """
    largest = float(values.max(initial=0))
    # The least of them, too: what is no number is both.
    if not np.isfinite([largest, values.min(initial=0)]).all():
        raise ValueError("pixels that are no finite numbers")
    ranges = (1, *GREY_RANGES) if values.dtype.kind == "f" else GREY_RANGES
    white = next((end for end in ranges if end >= largest), None)
    if white is None:
        raise ValueError(f"pixels up to {largest:g}, more than 32 bits")
    scaled = values.astype(np.float32)
    np.clip(scaled, 0, None, out=scaled)
    np.multiply(scaled, 255 / white, out=scaled)
    return np.rint(scaled, out=scaled).astype(np.uint8)
