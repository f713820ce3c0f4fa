"""What a model is shown of images: their feature maps, or their pixels."""

import abc
import dataclasses
import functools

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf


class ImageStore(abc.ABC):
    """One "map" `[h, w, c]` for each image, found by the image's key.

    Subclasses are frozen dataclasses. The row numbers of a store count from 1; 0 stands
    for no image, whose map is zeros.

    Attributes:
        cnn_names: what `cnn` names.
        channel_mean: mean of each channel over all images and positions, float32 `[c]`;
            `None` if the channels are not to be standardised.
        channel_std: standard deviation of each channel, likewise.
    """

    cnn_names = ()
    channel_mean = None
    channel_std = None

    def __getstate__(self):
        # Without the function that `gather` keeps, which cannot be pickled.
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields}

    @property
    @abc.abstractmethod
    def shape(self):
        """`(h, w, c)` of one map."""

    @property
    @abc.abstractmethod
    def cnn(self):
        """What the map of an image depends on, for a comparison of stores; dict."""

    @abc.abstractmethod
    def checksums(self):
        """CRC-32 of what a model is shown; dict by the names of files."""

    @classmethod
    def made(cls, cnn):
        """Whether a `cnn`, such as the one that an export keeps, is of such a store."""
        return set(cnn) == set(cls.cnn_names)

    @abc.abstractmethod
    def standardised_as(self, channel_mean, channel_std):
        """The same store with the moments of another one.

        Args:
            channel_mean: as the attribute.
            channel_std: as the attribute.
        """

    @abc.abstractmethod
    def shuffled(self, seed):
        """A control: the same store with the maps dealt out to other images."""

    def with_names(self, keys, names):
        """The same store without images that have the key of another one's name.

        Args:
            keys: int64 `[N]`, image keys.
            names: Arrow array `[N]`, the names of the images that have them.
        """
        return self

    @abc.abstractmethod
    def find(self, image_keys):
        """Row numbers of images, counted from 1; 0 for an image not in the store.

        Args:
            image_keys: int64 tensor of any shape.

        Returns:
            int64 tensor of the same shape.
        """

    @abc.abstractmethod
    def check_once(self, rows=None):
        """Checks that the store on the disk is what was written, once a process.

        Args:
            rows: int array, rows as `find` counts them whose files are to be checked;
                `None` for all.

        Raises:
            InputError: if it is not; names the file.
        """

    def gather(self, rows):
        """Maps of rows as `find` counts them, in graph operations.

        Args:
            rows: int64 tensor `[U]`; 0 gives a map of zeros, and reads nothing.

        Returns:
            tensor `[U, h, w, c]`.
        """
        return self._gather(rows)

    @functools.cached_property
    def _gather(self):
        rows = tf.TensorSpec([None], tf.int64)
        return tf.function(self._make_gather(), input_signature=[rows], autograph=False)

    @abc.abstractmethod
    def _make_gather(self):
        """The function behind `gather`, which is traced once."""
