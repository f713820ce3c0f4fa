"""Item metadata of Amazon Reviews 2023: JSON lines whose fields take several forms."""

import gzip
import itertools
import json
import math
import re
import zlib

import pyarrow as pa

from hccm_tf.errors import InputError
from tfrecords_tools.importers.malformed import MALFORMED

ITEMS = pa.schema(
    [
        ("item_id", pa.string()),
        ("image", pa.string()),
        ("category", pa.string()),
        ("store", pa.string()),
        ("price", pa.float64()),
    ]
)
IMAGE_FIELDS = ("large", "hi_res", "thumb", "variant")


def main_image(images):
    """URL of an item's main photo.

    Args:
        images: the metadata's `images`: a list of dicts, a dict of lists or `None`.

    Returns:
        The `MAIN` variant's, or without one the first's, `large`, `hi_res` or `thumb`;
        `""` if it has none.
    """
    if isinstance(images, dict):
        columns = [images.get(name) or [] for name in IMAGE_FIELDS]
        rows = itertools.zip_longest(*columns)
        images = [dict(zip(IMAGE_FIELDS, row, strict=True)) for row in rows]
    images = [image for image in images or [] if image]
    main = [image for image in images if image.get("variant") == "MAIN"]
    image = next(iter(main or images), {})
    return image.get("large") or image.get("hi_res") or image.get("thumb") or ""


def to_price(value):
    """A price as float: of a number, or the first number in a text.

    `None` where there is none, or none that is finite.
    """
    if isinstance(value, str):
        found = re.search(r"\d[\d,]*(\.\d+)?", value)
        value = found[0].replace(",", "") if found else None
    try:
        price = math.nan if value is None else float(value)
    except OverflowError:
        return None
    return price if math.isfinite(price) else None


def _to_item(record):
    categories = [name for name in record.get("categories") or [] if name]
    texts = {
        "item_id": record["parent_asin"],
        "image": main_image(record.get("images")),
        "category": categories[-1] if categories else record.get("main_category") or "",
        "store": record.get("store") or "",
    }
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} is no text but {text!r}")
        # JSON can hold halves of characters, which are none.
        text.encode()
    return {**texts, "price": to_price(record.get("price"))}


def read_metadata(path, wanted):
    """Yields the items of a metadata file, JSON lines, `.gz` or not.

    Args:
        path: file.
        wanted: set of `parent_asin`; other items are passed over.

    Yields:
        dict of the columns of `ITEMS`; the first, where an item occurs twice.

    Raises:
        InputError: names file and line of what cannot be read.
    """
    rest = set(wanted)
    number = 0
    try:
        opener = gzip.open if str(path).endswith(".gz") else open
        with opener(path, "rb") as lines:
            for line in lines:
                number += 1
                if line.isspace():
                    continue
                record = json.loads(line)
                if record["parent_asin"] in rest:
                    rest.remove(record["parent_asin"])
                    yield _to_item(record)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: after line {number}: {error}") from error
    except MALFORMED as error:
        raise InputError(
            f"{path}: line {number}: expected a JSON object with parent_asin and item "
            f"metadata. Received: {type(error).__name__}: {error}"
        ) from error
