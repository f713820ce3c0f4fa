"""Batches of a data folder: parse, index, deduplicate the images, gather their maps."""

import collections.abc
import dataclasses
import os

import tensorflow as tf

from hccm_tf.data.folder import DataFolder
from hccm_tf.data.image_inputs import SIDES, image_inputs
from hccm_tf.data.image_store import ImageStore
from hccm_tf.data.parsing import parse_spec
from hccm_tf.data.record_order import epoch_seed, in_order, shuffled
from hccm_tf.data.schema import Schema
from hccm_tf.files import require_scheme


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of a data folder, as a model is shown them.

    Args:
        data_dir: data folder of `tfrecords_tools.build_examples`.
        schema: `Schema` of the model.
        batch_size: number of impressions.
        images: `ImageStore`, `None` for a model without images.
        sides: of `SIDES`, whose images the model takes.
        group_by_item: whether shuffled impressions of the same item come in the same
            batch, see `hccm_tf.data.record_order.group_by_image`.
        tell_category: function of `shuffled_categories`, `None` to tell the truth.
        seed: int, which determines the order of each epoch.
    """

    data_dir: str | os.PathLike
    schema: Schema
    batch_size: int
    images: ImageStore | None = None
    sides: tuple = SIDES
    group_by_item: bool = False
    tell_category: collections.abc.Callable | None = None
    seed: int = 0

    @property
    def folder(self):
        """The `DataFolder`."""
        return DataFolder(self.data_dir)

    def dataset(self, split, epoch=None, part=(0, 1), skip=0, repeat=False):
        """Batches of one split.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            epoch: int or int64 tensor, to shuffle; `None` keeps the data's order.
            part: `(index, count)`, the first an int or int64 tensor: which of `count`
                disjoint parts, for several readers. In order, every `count`-th batch;
                shuffled, see `hccm_tf.data.record_order.shuffled`.
            skip: number of batches at the beginning to leave out, without reading their
                images.
            repeat: whether the data begin again, without end, before `skip` counts.

        Returns:
            `tf.data.Dataset` of `(inputs, label, user)`: the dict that a model takes
            (features `[B]`, histories `[B, T]` and the images of `image_inputs`),
            float32 `[B, 1]` and the user's int64 key `[B]`. All in graph operations.

        Raises:
            InputError: if there is no such split.
        """
        require_scheme(self.data_dir)
        files = self.folder.files(split)
        if epoch is None:
            dataset = in_order(files, self.batch_size, part)
        else:
            seed = epoch_seed(self.seed, epoch)
            dataset = shuffled(files, self.batch_size, seed, part, self.group_by_item)
        if repeat:
            dataset = dataset.repeat()
        dataset = dataset.skip(skip)
        if part[1] == 1 and not repeat:
            # A file that ends early is an error.
            count = max(self.num_batches(split) - skip, 0)
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
        # Nothing here is left to tune, and the end of an epoch would wait for seconds
        # until the tuner wakes up.
        options = tf.data.Options()
        options.autotune.enabled = False
        dataset = dataset.map(self._parser(), num_parallel_calls=2).prefetch(2)
        return dataset.with_options(options)

    def num_batches(self, split):
        """Number of a split's batches.

        Raises:
            InputError: if there is no such split.
        """
        return -(-self.folder.num_impressions(split) // self.batch_size)

    def _parser(self):
        """Function from serialized examples to `(inputs, label, user)`."""
        spec = parse_spec(self.schema)

        def to_batch(records):
            raw = tf.io.parse_example(records, spec)
            inputs = self.schema.index_all(raw)
            if self.images is not None:
                inputs.update(
                    image_inputs(
                        self.schema,
                        raw,
                        inputs,
                        self.images,
                        self.sides,
                        self.tell_category,
                    )
                )
            label = tf.cast(raw["label"], tf.float32)[:, None]
            return inputs, label, raw["user_key"]

        return to_batch
