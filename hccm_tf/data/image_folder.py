"""The images themselves, for models that train a CNN on pixels.

The "map" of an image are its pixels, as `extract_feature_maps` reads them.
"""

import dataclasses
import zlib

import numpy as np
from etils import epy

from hccm_tf.data import ids
from hccm_tf.data.image_store import ImageStore
from hccm_tf.data.mapped import mapped_array
from hccm_tf.data.pixel_file import PixelFile
from hccm_tf.files import crc32

with epy.lazy_imports():
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class ImageFolder(ImageStore):
    """A catalogue's readable images as pixels.

    Args:
        keys: int64 `[count]`, sorted image keys.
        rows: int64 `[count]`, the row of each key in `pixels`.
        pixels: `PixelFile`.
        skipped: dict from the name of an image that cannot be read to the reason.
    """

    keys: np.ndarray
    rows: np.ndarray
    pixels: PixelFile
    skipped: dict

    cnn_names = ("backbone", "image_size")

    @classmethod
    def open(cls, image_dir, images, image_size, shared=None, **allowed):
        """Decodes each image, once.

        Args:
            image_dir: folder of the images.
            images: distinct image names, see `hccm_tf.images.read.decode_image`; of
                names of one key the first by the alphabet.
            image_size: height and width in pixels, to which an image is resized.
            shared: see `PixelFile`.
            **allowed: likewise.
        """
        keys, order = ids.distinct_keys(np.asarray(images, object))[:2]
        images = np.asarray(images, object)[order]
        pixels = PixelFile(images, image_dir, image_size, shared, **allowed)
        keys = np.delete(keys, list(pixels.skipped))
        skipped = {images[place]: why for place, why in pixels.skipped.items()}
        return cls(keys, np.arange(1, len(keys) + 1), pixels, skipped)

    @property
    def shape(self):
        return self.pixels.shape[1:]

    @property
    def cnn(self):
        return {"backbone": None, "image_size": self.shape[0]}

    def checksums(self):
        places = zlib.crc32(np.stack([self.keys, self.rows]))
        found = np.array([places, crc32(self.pixels.path)])
        return {"one of its images": zlib.crc32(found)}

    def standardised_as(self, channel_mean, channel_std):
        # There is nothing to standardise; the model scales pixels as its CNN needs.
        return self

    def shuffled(self, seed):
        rows = np.random.default_rng(seed).permutation(self.rows)
        return dataclasses.replace(self, rows=rows)

    def check_once(self, rows=None):
        """Nothing: the file is this process's own."""

    def find(self, image_keys):
        rows = np.concatenate([[0], self.rows])
        return tf.gather(rows, ids.find(self.keys, image_keys) + 1)

    def _make_gather(self):
        def gather(rows):
            pixels = mapped_array(self.pixels.path, tf.uint8, self.pixels.shape)
            return tf.gather(pixels, rows)

        return gather
