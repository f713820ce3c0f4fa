"""The feature schema: which features there are, and how raw columns become inputs.

What a feature is, `hccm_tf.data.feature` says.
"""

import dataclasses
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epy

from hccm_tf import formats
from hccm_tf.atomic import new_file, write_text
from hccm_tf.data.column_names import check_column_names
from hccm_tf.data.feature import MAX_SIZE, Feature
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.files import join, open_file, read_json

with epy.lazy_imports():
    import tensorflow as tf

SCHEMA = "schema.json"
BUILD = "python -m tfrecords_tools.build_examples"


@dataclasses.dataclass(frozen=True)
class Schema:
    """The features of a data set, and how raw columns become model inputs.

    Args:
        features: tuple of `Feature`.
        max_history: number of newest clicks that a history keeps.
        vocabularies: name → sorted int64 keys of a `vocabulary` feature.
        negative_keep_rate: share of the training split's negatives that the data
            holds; see `unsampled`.
        checks: name → int64 checks of the strings of a vocabulary, see
            `hccm_tf.data.ids`; one without is known by its keys alone.
        counts: name → int64, how often each value of a vocabulary occurs in the
            training split.

    Raises:
        InputError: if a feature is named twice, or as none can be, or shares one that
            is not there, or the rate is not in (0, 1].
    """

    features: tuple
    max_history: int = 100
    vocabularies: dict = dataclasses.field(default_factory=dict, repr=False)
    negative_keep_rate: float = 1.0
    checks: dict = dataclasses.field(default_factory=dict, repr=False)
    counts: dict = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self):
        longest = self.max_history
        if type(longest) is not int or not 1 <= longest <= MAX_SIZE:
            raise InputError(
                f"max_history: from 1 to {MAX_SIZE} clicks. Received: {longest!r}"
            )
        rate = self.negative_keep_rate
        if type(rate) not in (int, float) or not 0 < rate <= 1:
            raise InputError(
                f"negative_keep_rate: more than 0, at most 1. Received: {rate!r}"
            )
        names = [feature.name for feature in self.features]
        with errors_begin_with("schema: "):
            check_column_names([*(feature.name for feature in self.scalars), "image"])
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"schema: features named twice: {', '.join(twice)}")
        for feature in self.sequences:
            if feature.shares not in names:
                raise InputError(
                    f"schema: {feature.name} shares {feature.shares}, which is no "
                    f"feature. Received: {', '.join(names)}"
                )
            if not self[feature.shares].is_embedded:
                raise InputError(
                    f"schema: {feature.name} shares {feature.shares}, which has no "
                    f"embedding. Received kind: {self[feature.shares].kind}"
                )

    def __getitem__(self, name):
        for feature in self.features:
            if feature.name == name:
                return feature
        names = ", ".join(feature.name for feature in self.features)
        raise InputError(f"schema: no feature {name}. Received: {names}")

    def __contains__(self, name):
        return any(feature.name == name for feature in self.features)

    @property
    def sequences(self):
        """The features that are histories."""
        return tuple(f for f in self.features if f.is_sequence)

    @property
    def scalars(self):
        """The features that are not histories."""
        return tuple(f for f in self.features if not f.is_sequence)

    def num_rows(self, name):
        """Rows of a feature's embedding table, the two reserved ones included."""
        return self[name].num_rows

    def with_max_history(self, max_history):
        """The same schema with shorter histories."""
        if not 0 < max_history <= self.max_history:
            raise InputError(
                f"max_history: 1 to {self.max_history}, what the data holds. "
                f"Received: {max_history}"
            )
        return dataclasses.replace(self, max_history=max_history)

    def unsampled(self, ctr):
        """Click probabilities of the log, of those that a model gives.

        A model trained where the share w of the negatives is kept predicts too many
        clicks: p / (p + (1 − p) / w) undoes it (X. He et al., ADKDD '14, section 6.3).

        Args:
            ctr: probabilities, array or tensor of any shape.
        """
        return ctr / (ctr + (1 - ctr) / self.negative_keep_rate)

    def save(self, folder):
        """Writes `schema.json` and, beside it, the vocabularies that it holds."""
        content = {
            "format": formats.DATA,
            "max_history": self.max_history,
            "negative_keep_rate": self.negative_keep_rate,
            "features": [
                {k: v for k, v in vars(f).items() if v != getattr(Feature, k, None)}
                for f in self.features
            ],
        }
        write_text(pathlib.Path(folder) / SCHEMA, json.dumps(content, indent=2) + "\n")
        for name, keys in self.vocabularies.items():
            more = self.checks.get(name), self.counts.get(name)
            write_vocabulary(folder, name, keys, *more)

    @classmethod
    def load(cls, folder, with_vocabularies=True):
        """Reads what `save` wrote.

        Args:
            folder: path.
            with_vocabularies: whether to read the vocabularies too.

        Raises:
            InputError: if a file is missing, damaged or of another format.
        """
        schema = _read(join(folder, SCHEMA), format_if_none=None)
        if not with_vocabularies:
            return schema
        found = {"key": {}, "check": {}, "count": {}}
        for feature in schema.scalars:
            if feature.has_vocabulary:
                path = vocabulary_file(folder, feature.name)
                for column, values in _read_vocabulary(path, found).items():
                    found[column][feature.name] = values
        keys, checks, counts = found.values()
        return dataclasses.replace(
            schema, vocabularies=keys, checks=checks, counts=counts
        )

    def index(self, name, values):
        """Indices (or standardised floats) of raw values, in graph operations.

        Args:
            name: a feature that is not a sequence.
            values: tensor of any shape, of the feature's dtype.

        Returns:
            int32 tensor of the same shape; float32 for kind `float`.
        """
        return self[name].index(values, *self.known(name))

    def known(self, name):
        """`(keys, checks)` of a feature's vocabulary, `None` for what it has not."""
        return self.vocabularies.get(name), self.checks.get(name)

    def index_all(self, raw, num_candidates=None, width_step=1):
        """Model inputs of a batch of raw columns.

        Args:
            raw: dict with a ragged tensor `[B, (t)]`, oldest click first, for each
                sequence; and for each scalar a tensor `[B]`, or of candidates `[B, N]`
                or ragged `[B, (n)]`.
            num_candidates: N to which ragged candidates are padded; `None` for the most
                that occur.
            width_step: T is rounded up to a multiple of it, or to `max_history`, so
                that few widths occur.

        Returns:
            dict of tensors `[B]`, `[B, N]` and `[B, T]` by the features' `input_name`,
            padded with 0. T is that of the longest history of the batch (at least 1, at
            most `max_history`, newest clicks kept).
        """
        inputs = {}
        for feature in self.scalars:
            value = raw[feature.name]
            if isinstance(value, tf.RaggedTensor):
                index = self.index(feature.name, value.flat_values)
                value = pad_candidates(value.with_flat_values(index), num_candidates)
            else:
                value = self.index(feature.name, value)
            inputs[feature.input_name] = value
        for feature in self.sequences:
            history = self.truncate(raw[feature.name])
            index = self.index(feature.shares, history.flat_values)
            history = history.with_flat_values(index)
            inputs[feature.input_name] = self.pad_history(history, width_step)
        return inputs

    def truncate(self, history):
        """The newest `max_history` clicks of a ragged history."""
        return history[:, -self.max_history :]

    def pad_history(self, history, width_step=1):
        """Dense `[B, T]` form of a ragged history, padded with 0; see `index_all`."""
        longest = tf.maximum(history.bounding_shape(axis=1), 1)
        width = -(-longest // width_step) * width_step
        width = tf.maximum(tf.minimum(width, self.max_history), longest)
        return history.to_tensor(shape=tf.stack([history.nrows(), width]))


def pad_candidates(values, num_candidates=None, padding=None):
    """Dense `[R, N]` form of ragged candidates; arguments as of `Schema.index_all`."""
    width = values.bounding_shape(axis=1) if num_candidates is None else num_candidates
    shape = tf.stack([values.nrows(), tf.cast(width, tf.int64)])
    return values.to_tensor(padding, shape=shape)


def vocabulary_file(folder, name):
    """Path of the vocabulary of a feature, str."""
    return join(folder, "vocabularies", f"{name}.parquet")


def write_vocabulary(folder, name, keys, checks=None, counts=None, values=None):
    """Writes the sorted keys of a vocabulary, and what else is known of its values."""
    table = {"key": keys, "check": checks, "count": counts, "value": values}
    table = {column: array for column, array in table.items() if array is not None}
    path = pathlib.Path(vocabulary_file(folder, name))
    path.parent.mkdir(exist_ok=True)
    with new_file(path) as temporary:
        pq.write_table(pa.table(table), temporary)


def _read_vocabulary(path, columns):
    """Columns of a vocabulary by their names; it may lack all but the keys."""
    try:
        with open_file(path) as handle:
            # What is not there is left out.
            table = pq.ParquetFile(handle).read(list(columns))
        return {name: table[name].to_numpy() for name in {"key", *table.column_names}}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: not a vocabulary ({error}); build the examples again"
        ) from error


def read_schema(path):
    """Reads a `schema.json` that a user may have edited, without vocabularies.

    Args:
        path: the file; it need not say its format.

    Raises:
        InputError: if it is missing, damaged or of another format.
    """
    return _read(path, format_if_none=formats.DATA)


def _read(path, format_if_none):
    try:
        content = read_json(path)
        found = content.get("format", format_if_none)
        formats.check_format(path, found, formats.DATA, BUILD)
        with errors_begin_with(f"{path}: "):
            features = tuple(Feature(**entry) for entry in content["features"])
            if not features:
                raise InputError("it has no feature")
            return Schema(
                features,
                content["max_history"],
                negative_keep_rate=content.get("negative_keep_rate", 1.0),
            )
    except OSError as error:
        raise InputError(f"{path}: no such file ({error})") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a feature schema: {error}") from error
