"""Reads images of a catalogue; whatever is wrong with one becomes a reason."""

import collections
import concurrent.futures
import contextlib
import io
import os
import pathlib
import time
import urllib.parse
import urllib.request

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hccm_tf.files import is_remote, open_file
from hccm_tf.version import __version__

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
MAX_BYTES = 2**26  # of a download
TIMEOUT = 30.0  # seconds of a download
DOWNLOADS = 32  # at the same time


def _download(url):
    # Catalogues hold spaces and letters that a URL must not.
    url = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]")
    headers = {"User-Agent": f"hccm_tf/{__version__}"}
    request = urllib.request.Request(url, headers=headers)
    content = bytearray()
    end = time.monotonic() + TIMEOUT
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        while block := response.read1(2**16):
            content += block
            if len(content) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            if time.monotonic() > end:
                raise TimeoutError(f"takes longer than {TIMEOUT} s")
    return io.BytesIO(content)


def _open(image, image_dir):
    """Binary file object of an image."""
    if image.startswith(("http://", "https://")):
        return _download(image)
    return open_file(image if is_remote(image) else pathlib.Path(image_dir) / image)


def _open_image(handle):
    """`Image.open` without its limit of pixels, of which a process has only one.

    `decode_image` has a limit of its own, which may be higher.
    """
    Image.init()
    prefix = handle.read(16)
    for name in FORMATS:
        open_format, accept = Image.OPEN[name]
        # A text says why Pillow was built without the format.
        if accept(prefix) is True:
            handle.seek(0)
            # What only begins like an image of this format.
            with contextlib.suppress(SyntaxError):
                return open_format(handle, "")
    raise UnidentifiedImageError


def _decode(handle, size, max_pixels):
    with _open_image(handle) as opened:
        width, height = opened.size
        if width * height > max_pixels:
            raise ValueError(
                f"{width} × {height} pixels are more than max_pixels={max_pixels}"
            )
        # Of a JPEG, decodes only as many frequencies as the small image shows.
        opened.draft("RGB", (size, size))
        image = opened
        if opened.mode.startswith("I;16"):
            # Pillow's own conversion cuts everything above 255 off.
            image = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
        transparent = image.has_transparency_data
        image = image.convert("RGBA" if transparent else "RGB")
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    # Damaged Exif data say nothing about the orientation.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    if transparent:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return np.asarray(image)


def _one_line(error):
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def decode_image(image, image_dir, size, max_pixels=MAX_PIXELS):
    """Reads an image as upright RGB, composed on white, of `size` × `size` pixels.

    Of an animation, the first frame is taken.

    Args:
        image: path below `image_dir`, or a URL: `http://`, `https://`, or what
            `hccm_tf.files` opens.
        image_dir: folder of the images.
        size: height and width in pixels of the result.
        max_pixels: an image with more pixels is refused before it is decoded.

    Returns:
        `(pixels, None)`, uint8 `[size, size, 3]`, or `(None, reason)`.
    """
    # Libraries for images and networks raise whatever a broken input leads them to.
    try:
        handle = _open(image, image_dir)
    except FileNotFoundError:
        return None, "no such file"
    except Exception as error:
        return None, f"cannot be read: {_one_line(error)}"
    try:
        with handle:
            return _decode(handle, size, max_pixels), None
    except UnidentifiedImageError:
        return None, f"cannot be decoded: none of {', '.join(FORMATS)}"
    except Exception as error:
        return None, f"cannot be decoded: {_one_line(error)}"


def decode_images(images, image_dir, size, max_pixels=MAX_PIXELS, ahead=64):
    """Decodes images in threads, some ahead of the caller.

    Args:
        images: names of images.
        image_dir: see `decode_image`, as the next two.
        size: height and width in pixels.
        max_pixels: limit of an image's pixels.
        ahead: how many images may be decoded, or be about to, and not yet asked for.

    Yields:
        What `decode_image` returns, in the order of `images`.
    """
    threads = DOWNLOADS if any(map(is_remote, images)) else os.cpu_count()
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        # Not `pool.map`: it would go on until it holds the pixels of all images.
        for image in images:
            waiting.append(
                pool.submit(decode_image, image, image_dir, size, max_pixels)
            )
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
