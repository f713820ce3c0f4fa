"""Pictures as they stand inside a page."""

import base64
import io

from PIL import Image

from hccm_tf.images.read import decode_images

SIZE = 96  # pixels, height and width
QUALITY = 75


def data_uri(pixels, format="PNG", **options):
    """The `data:` URI of an image.

    Args:
        pixels: uint8 `[h, w]`, grey, or `[h, w, 3]`.
        format: `"PNG"` or `"JPEG"`.
        **options: of Pillow's `save`.
    """
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format, **options)
    encoded = base64.b64encode(content.getvalue()).decode()
    return f"data:image/{format.lower()};base64,{encoded}"


def read_pictures(names, image_dir, **allowed):
    """Thumbnails, squeezed into a square as the fixed CNN sees them.

    Args:
        names: names of images as in the catalogue.
        image_dir: folder of those that are no URLs.
        **allowed: see `hccm_tf.images.read.decode_image`.

    Returns:
        `(pictures, reasons)`: dicts from name to `data:` URI, and to why an image
        cannot be read.
    """
    pictures, reasons = {}, {}
    decoded = decode_images(names, image_dir, SIZE, **allowed)
    for name, (pixels, reason) in zip(names, decoded, strict=True):
        if pixels is None:
            reasons[name] = reason
        else:
            pictures[name] = data_uri(pixels, "JPEG", quality=QUALITY)
    return pictures, reasons


def say_unread(reasons, count):
    """Says how many of `count` images are not shown, and why one is not."""
    if reasons:
        name, reason = next(iter(reasons.items()))
        print(
            f"warning: {len(reasons)} of {count} images are not shown, such as {name}: "
            f"{reason}"
        )
