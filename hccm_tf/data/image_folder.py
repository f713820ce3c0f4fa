"""The images themselves, decoded in the input pipeline.

For models that train a CNN on pixels: the "map" of an image are its pixels.
"""

import dataclasses
import zlib

import numpy as np
from etils import epy

from hccm_tf.data import ids
from hccm_tf.data.image_store import ImageStore
from hccm_tf.files import crc32_of_all, join, require_scheme

with epy.lazy_imports():
    import tensorflow as tf

PARALLEL = 8


@dataclasses.dataclass(frozen=True)
class ImageFolder(ImageStore):
    """A catalogue's readable images as pixels.

    What TensorFlow decodes counts as readable: JPEG, PNG, BMP, the first frame of a
    GIF and, from TensorFlow 2.19 on, WebP, in local files and what else TensorFlow
    reads. Unlike `extract_feature_maps`, it does not turn a photo as its Exif data say
    and drops transparency.

    Args:
        keys: int64 `[count]`, sorted image keys.
        files: str `[count]`, the path of each.
        image_size: height and width in pixels, to which an image is resized.
        skipped: names of the images that are missing or cannot be decoded.
    """

    keys: np.ndarray
    files: np.ndarray
    image_size: int
    skipped: tuple = ()

    cnn_names = ("backbone", "image_size")

    @classmethod
    def open(cls, image_dir, images, image_size):
        """Decodes each image once, to know those that can be.

        Args:
            image_dir: folder of the images.
            images: distinct image names, paths relative to `image_dir`; of names of
                one key the first by the alphabet.
            image_size: height and width in pixels.
        """
        require_scheme(image_dir)
        keys, order = ids.distinct_keys(np.asarray(images, object))[:2]
        images = np.asarray(images, object)[order]
        files = np.asarray([join(image_dir, image) for image in images], object)
        readable = np.zeros(len(images), bool)
        readable[_decodable(files, image_size)] = True
        skipped = tuple(images[~readable].tolist())
        return cls(keys[readable], files[readable], image_size, skipped)

    @property
    def shape(self):
        return (self.image_size, self.image_size, 3)

    @property
    def cnn(self):
        return {"backbone": None, "image_size": self.image_size}

    def checksums(self):
        found = np.array([self.keys, crc32_of_all(self.files)])
        return {"one of its images": zlib.crc32(found)}

    def standardised_as(self, channel_mean, channel_std):
        # There is nothing to standardise; the model scales pixels as its CNN needs.
        return self

    def shuffled(self, seed):
        files = np.random.default_rng(seed).permutation(self.files)
        return dataclasses.replace(self, files=files)

    def find(self, image_keys):
        return ids.find(self.keys, image_keys) + 1

    def _make_gather(self):
        # The paths are not part of a graph, of which the first may ask for them.
        with tf.init_scope():
            files = tf.constant(self.files, tf.string)

        def gather(rows):
            place = tf.where(rows > 0)
            pixels = tf.map_fn(
                lambda file: decode(file, self.image_size),
                tf.gather(files, tf.gather_nd(rows, place) - 1),
                parallel_iterations=PARALLEL,
                fn_output_signature=tf.TensorSpec(self.shape, tf.uint8),
            )
            shape = [tf.size(rows, tf.int64), *self.shape]
            return tf.ensure_shape(
                tf.scatter_nd(place, pixels, shape), [None, *self.shape]
            )

        return gather


def decode(file, image_size):
    """Reads an image file as `image_size` × `image_size` pixels, in graph operations.

    Args:
        file: string tensor, path.
        image_size: height and width in pixels.

    Returns:
        uint8 tensor `[image_size, image_size, 3]`, RGB.
    """
    pixels = tf.io.decode_image(
        tf.io.read_file(file), channels=3, expand_animations=False
    )
    pixels = tf.image.resize(pixels, [image_size, image_size], antialias=True)
    return tf.saturate_cast(tf.round(pixels), tf.uint8)


def _decodable(files, image_size):
    """Places of the files that `decode` reads, int64 array."""
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(files, tf.string))
    # A value of the pixels, because what nothing needs is not computed.
    dataset = dataset.enumerate().map(
        lambda place, file: (place, tf.reduce_max(decode(file, image_size))),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    dataset = dataset.ignore_errors()
    return np.array([place for place, _ in dataset.as_numpy_iterator()], np.int64)
