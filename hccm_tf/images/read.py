"""Reads images of a catalogue; whatever is wrong with one becomes a reason."""

import collections
import concurrent.futures
import contextlib
import os

from PIL import UnidentifiedImageError

from hccm_tf.files import is_remote
from hccm_tf.images.decode import FORMATS, decode
from hccm_tf.images.places import image_content

MAX_PIXELS = 50_000_000
DOWNLOADS = 32  # at the same time


def _one_line(error):
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def decode_image(image, image_dir, size, max_pixels=MAX_PIXELS, **allowed):
    """Reads an image as upright RGB, composed on white, of `size` × `size` pixels.

    Of an animation, the first frame is taken.

    Args:
        image: path below `image_dir`, or a URL: `http://`, `https://`, or what
            `hccm_tf.files` opens.
        image_dir: folder of the images, on a disk or in an object store.
        size: height and width in pixels of the result.
        max_pixels: an image with more pixels is refused before it is decoded.
        **allowed: `allow_links` and `allow_private_urls` of
            `hccm_tf.images.places.image_content`, both `False` by default.

    Returns:
        `(pixels, None)`, uint8 `[size, size, 3]`, or `(None, reason)`.
    """
    # Libraries for images and networks raise whatever a broken input leads them to.
    with contextlib.ExitStack() as stack:
        try:
            content = image_content(image, image_dir, **allowed)
            content = stack.enter_context(content)
        except FileNotFoundError:
            return None, "no such file"
        except Exception as error:
            return None, f"cannot be read: {_one_line(error)}"
        try:
            return decode(content, size, max_pixels), None
        except UnidentifiedImageError:
            return None, f"cannot be decoded: none of {', '.join(FORMATS)}"
        except Exception as error:
            return None, f"cannot be decoded: {_one_line(error)}"


def decode_images(images, image_dir, size, max_pixels=MAX_PIXELS, ahead=64, **allowed):
    """Decodes images in threads, some ahead of the caller.

    Args:
        images: names of images.
        image_dir: see `decode_image`, as the next two.
        size: height and width in pixels.
        max_pixels: limit of an image's pixels.
        ahead: how many images may be decoded, or be about to, and not yet asked for.
        **allowed: see `decode_image`.

    Yields:
        What `decode_image` returns, in the order of `images`.
    """
    remote = is_remote(image_dir) or any(map(is_remote, images))
    threads = DOWNLOADS if remote else os.cpu_count()
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        # Not `pool.map`: it would go on until it holds the pixels of all images.
        for image in images:
            waiting.append(
                pool.submit(decode_image, image, image_dir, size, max_pixels, **allowed)
            )
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
