"""The data folder DATA, as `tfrecords_tools.build_examples` writes it.

Nothing else knows its files, their names, and how many requests and impressions they
hold.
"""

import contextlib
import json
import os
import pathlib
import zlib

import numpy as np
from etils import epy

from hccm_tf.data.schema import BUILD, SCHEMA, Schema
from hccm_tf.errors import InputError, first_line
from hccm_tf.files import (
    crc32_of_all,
    join,
    read_json,
    read_parquet,
    require_scheme,
)

with epy.lazy_imports():
    import tensorflow as tf

INFO = "dataset_info.json"
# Patterns of the names of all that is read of it.
NEEDED = ("*.json", "*.parquet", "vocabularies/*.parquet", "*.tfrecord-*")
CATALOGUE_COLUMNS = ["item_id", "image", "image_key", "category"]


def _of_split(file, splits, split):
    """What a file says of a split, in a dict of those that it knows."""
    if split not in splits:
        raise InputError(
            f"{file}: no split {split}, make it with {BUILD}. Received: "
            f"{', '.join(splits)}"
        )
    return splits[split]


class DataFolder:
    """The folder DATA.

    Args:
        path: str or `pathlib.Path`, local or remote.

    Attributes:
        path: as given.
        schema_file: path of the feature schema; beside it are the vocabularies.
        catalogue_file: path of the items' ids, images and categories.
        info_file: path of the number of records of each shard, as tensorflow-datasets
            has it.
        features_file: path of the types of the columns, likewise.
        summary_file: path of what was read, left out and written.
    """

    def __init__(self, path):
        self.path = path
        self.schema_file = join(path, SCHEMA)
        self.catalogue_file = join(path, "catalogue.parquet")
        self.info_file = join(path, INFO)
        self.features_file = join(path, "features.json")
        self.summary_file = join(path, "summary.json")

    def schema(self, with_vocabularies=True):
        """The `Schema`.

        Args:
            with_vocabularies: whether to read the vocabularies too, which may be large.

        Raises:
            InputError: if a file is missing, damaged or of another format.
        """
        return Schema.load(self.path, with_vocabularies)

    def catalogue(self, columns=CATALOGUE_COLUMNS):
        """Arrow table with one row for each item.

        Args:
            columns: names; `None` for all that the items have.

        Raises:
            InputError: if the file is missing or damaged, or lacks a column.
        """
        path = self.catalogue_file
        try:
            return read_parquet(path, columns)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: not a catalogue ({first_line(error)}); build the examples "
                "again"
            ) from error

    def shard_file(self, split, number, total):
        """Path of a shard of a split, as tensorflow-datasets names it.

        Args:
            split: its name.
            number: number of the shard.
            total: number of the split's shards.
        """
        name = f"impressions-{split}.tfrecord-{number:05d}-of-{total:05d}"
        return join(self.path, name)

    def shard_lengths(self):
        """Number of records, requests, in each shard: dict from split to list of int.

        Raises:
            InputError: if the file that says so is missing or damaged.
        """
        try:
            splits = read_json(self.info_file)["splits"]
            return {
                split["name"]: [int(length) for length in split["shardLengths"]]
                for split in splits
            }
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise InputError(
                f"{self.info_file}: cannot be read ({error!r}); make the data folder "
                f"with {BUILD}"
            ) from error

    def files(self, split):
        """Paths of a split's shards, in order.

        Raises:
            InputError: if there is no such split.
        """
        total = len(self._lengths(split))
        return [self.shard_file(split, number, total) for number in range(total)]

    def records(self, split):
        """`tf.data.TFRecordDataset` of a split's requests, in order.

        Raises:
            InputError: if there is no such split, or nothing reads the folder's scheme.
        """
        require_scheme(self.path)
        return tf.data.TFRecordDataset(self.files(split))

    def num_requests(self, split):
        """Number of a split's records, which are requests.

        Raises:
            InputError: if there is no such split.
        """
        return sum(self._lengths(split))

    def _lengths(self, split):
        return _of_split(self.info_file, self.shard_lengths(), split)

    def num_impressions(self, split):
        """Number of a split's impressions, which are candidates of requests.

        Raises:
            InputError: if there is no such split, or the summary is missing or damaged.
        """
        return self._summary(
            lambda found: int(_of_split(self.summary_file, found["splits"], split))
        )

    @property
    def max_candidates(self):
        """The most candidates that a record has.

        Raises:
            InputError: if the summary is missing or damaged.
        """
        return self._summary(lambda found: int(found["max_candidates"]))

    @property
    def weighted(self):
        """Whether impressions have a weight.

        Raises:
            InputError: if the summary is missing or damaged.
        """
        return self._summary(lambda found: bool(found["weighted"]))

    def _summary(self, read):
        try:
            return read(read_json(self.summary_file))
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.summary_file}: cannot be read ({error!r}); make the data "
                f"folder with {BUILD}"
            ) from error

    def columns(self):
        """Names of what the records have, set.

        Raises:
            InputError: if the file that says so is missing or damaged.
        """
        try:
            return set(read_json(self.features_file)["featuresDict"]["features"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.features_file}: cannot be read ({error!r}); make the data "
                f"folder with {BUILD}"
            ) from error

    def checksums(self):
        """CRC-32 of all that training, validation and test read; dict by names.

        Raises:
            InputError: if a file is missing or damaged.
        """
        paths = [self.schema_file, self.catalogue_file]
        for split in self.shard_lengths():
            paths += self.files(split)
        try:
            values = crc32_of_all(paths)
        except OSError as error:
            raise InputError(f"{error}; make the data folder with {BUILD}") from error
        names = map(os.path.basename, paths)
        found = dict(zip(names, values, strict=True))
        for name, keys in self.schema().vocabularies.items():
            found[f"vocabulary of {name}"] = zlib.crc32(np.ascontiguousarray(keys))
        return found

    def checksum(self):
        """CRC-32 of `checksums`, int.

        Raises:
            InputError: likewise.
        """
        return zlib.crc32(json.dumps(sorted(self.checksums().items())).encode())

    def found_files(self):
        """Paths, `pathlib.Path`, of all that a local folder holds of shards."""
        return sorted(pathlib.Path(self.path).glob("*.tfrecord-*"))

    @contextlib.contextmanager
    def report_damage(self):
        """Turns TensorFlow's error of a damaged record into one that says what to do.

        Raises:
            InputError: instead of it.
        """
        # Of a damaged record, of a file that ends early, and of one that is not there.
        damages = (
            tf.errors.DataLossError,
            tf.errors.FailedPreconditionError,
            tf.errors.NotFoundError,
        )
        try:
            yield
        except damages as error:
            raise InputError(
                f"{self.path}: a TFRecord is missing, truncated or damaged; find it "
                "with python -m tfrecords_tools.validate, and build the examples again"
            ) from error
