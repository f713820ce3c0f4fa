"""Batches of a data folder: parse, index, deduplicate the images, gather their maps."""

import collections.abc
import dataclasses
import functools
import os

import tensorflow as tf

from hccm_tf.data.feature import HISTORY, HISTORY_IMAGE
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.image_inputs import SIDES, image_inputs
from hccm_tf.data.image_store import ImageStore
from hccm_tf.data.parsing import parse_spec
from hccm_tf.data.record_order import (
    epoch_seed,
    grouped_impressions,
    in_order,
    shuffled,
)
from hccm_tf.data.schema import Schema, pad_candidates
from hccm_tf.files import require_scheme

WIDTH_STEP = 16  # of padded histories, so that few shapes occur


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of a data folder, as a model is shown them.

    A batch is R requests of N candidates, both always the same but for an epoch's last
    batch; where a request has fewer, the rest is masked.

    Args:
        data_dir: data folder of `tfrecords_tools.build_examples`.
        schema: `Schema` of the model.
        batch_size: number of impressions, on average: R × N without what is masked.
        images: `ImageStore`, `None` for a model without images; `PooledMaps` for trees.
        sides: of `SIDES`, whose images the model takes.
        group_by_item: whether shuffled impressions of the same item come in the same
            batch, each a request of its own, see
            `hccm_tf.data.record_order.grouped_impressions`.
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

    def __getstate__(self):
        # Without `_parsers`, which cannot be pickled.
        return vars(dataclasses.replace(self))

    @property
    def folder(self):
        """The `DataFolder`."""
        return DataFolder(self.data_dir)

    def requests_per_batch(self, split):
        """R, the number of requests in a batch of a split that is not grouped."""
        folder = self.folder
        share = folder.num_requests(split) / folder.num_impressions(split)
        return max(round(self.batch_size * share), 1)

    def num_batches(self, split, shuffled=False):
        """Number of a split's batches, in order or shuffled.

        Raises:
            InputError: if there is no such split.
        """
        if shuffled and self.group_by_item:
            return -(-self.folder.num_impressions(split) // self.batch_size)
        return -(-self.folder.num_requests(split) // self.requests_per_batch(split))

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
            `tf.data.Dataset` of `(inputs, label, weight, keys)`, all in graph
            operations: the dict that a model takes (features of the user `[R]`, those
            of candidates and `candidate_mask` `[R, N]`, histories `[R, T]` and the
            images of `image_inputs`); float32 `[R, N, 1]`; float32 `[R, N]`, 0 where
            there is no candidate; and the dict of int64 `user_key [R]` and `row [R, N]`
            of the log, −1 likewise.

        Raises:
            InputError: if there is no such split.
        """
        require_scheme(self.data_dir)
        files, requests = self.folder.files(split), self.requests_per_batch(split)
        grouped = self.group_by_item and epoch is not None
        if epoch is None:
            dataset = in_order(files, requests, part)
        else:
            seed = epoch_seed(self.seed, epoch)
            dataset = shuffled(files, seed, part)
            if grouped:
                dataset = grouped_impressions(dataset, self.batch_size, seed)
            else:
                dataset = dataset.batch(requests)
        if repeat:
            dataset = dataset.repeat()
        dataset = dataset.skip(skip)
        if part[1] == 1 and not repeat:
            # A file that ends early is an error.
            count = max(self.num_batches(split, epoch is not None) - skip, 0)
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
        # Nothing here is left to tune, and the end of an epoch would wait for seconds
        # until the tuner wakes up.
        options = tf.data.Options()
        options.autotune.enabled = False
        width = 1 if grouped else self.folder.max_candidates
        key = width, self.folder.weighted
        if key not in self._parsers:
            self._parsers[key] = self._parser(*key)
        dataset = dataset.map(self._parsers[key], num_parallel_calls=2).prefetch(2)
        return dataset.with_options(options)

    @functools.cached_property
    def _parsers(self):
        """The functions of `_parser` by its arguments, which each are traced once."""
        return {}

    def _parser(self, width, weighted):
        """Function from serialized requests to what `dataset` has.

        Args:
            width: N, the number of candidates to which requests are padded.
            weighted: whether the records have weights.
        """
        spec = parse_spec(self.schema)
        # What the model does not read is not parsed.
        unread = {
            name
            for side, name in zip(SIDES, ("image", HISTORY_IMAGE), strict=True)
            if name not in self.schema
            and (self.images is None or side not in self.sides)
        }
        spec = {name: entry for name, entry in spec.items() if name not in unread}
        if weighted:
            spec["weight"] = tf.io.RaggedFeature(tf.float32, row_splits_dtype=tf.int64)

        # AutoGraph has nothing to convert, and would take longer than the trace.
        @tf.function(autograph=False)
        def to_batch(records, candidate=None):
            raw = tf.io.parse_example(records, spec)
            if candidate is not None:
                raw = _only_candidate(raw, raw["label"].row_starts() + candidate)
            inputs = self.schema.index_all(raw, width, WIDTH_STEP)
            if self.images is not None:
                inputs |= image_inputs(self, raw, inputs, width, WIDTH_STEP)
            label = raw["label"].with_flat_values(
                tf.cast(raw["label"].flat_values, tf.float32)
            )
            weight = raw.get("weight", tf.ones_like(label))
            mask = pad_candidates(tf.ones_like(label), width) > 0
            keys = {
                "user_key": raw["user_key"],
                "row": pad_candidates(raw["row"], width, padding=-1),
            }
            return (
                {**inputs, "candidate_mask": mask},
                pad_candidates(label, width)[..., None],
                pad_candidates(weight, width),
                keys,
            )

        return to_batch


def _only_candidate(raw, places):
    """Requests of one candidate each.

    Args:
        raw: dict of parsed columns.
        places: int64 `[R]`, that candidate's place among all requests' candidates.
    """
    one = tf.range(tf.size(places, tf.int64) + 1)

    def choose(name, value):
        if not isinstance(value, tf.RaggedTensor) or name.startswith(HISTORY):
            return value
        return tf.RaggedTensor.from_row_splits(
            tf.gather(value.flat_values, places), one
        )

    return {name: choose(name, value) for name, value in raw.items()}
