"""The kinds of features: what each one is, said once.

Index 0 is padding and never an id; index 1 is the trained out-of-vocabulary row; ids
start at 2.

| kind | column | becomes |
|---|---|---|
| `vocabulary` | int64 or string | place among the training split's values + 2 |
| `hash` | int64 or string | hash bucket of `size` + 2 |
| `integer` | int64 in 0..`size` − 1 | value + 2, 1 outside the range |
| `float` | float32 | (value − `mean`) / `std`, 0 where missing |
| `sequence` | history of the column that it `shares` | that feature's index per click |
"""

import abc

from etils import epy

from hccm_tf.data import ids

with epy.lazy_imports():
    import tensorflow as tf

OOV = 1
RESERVED = 2  # padding and out-of-vocabulary
# Of a number from its mean, in standard deviations. A larger one is a mistake, and a
# very large one would make the answer NaN.
MAX_DEVIATIONS = 1e3


class Kind(abc.ABC):
    """What the features of a kind are, and how their raw values become indices.

    Attributes:
        is_embedded: whether its values are indices into an embedding table of its own.
        is_sequence: whether it is a history.
        is_float: whether it is a number that is standardised.
        has_vocabulary: whether it keeps the training split's values.
        has_unknown_row: whether index 1, out-of-vocabulary, occurs.
        is_counted: whether it is counted how often its values occur in training.
        needs_size: whether it must be told its `size`.
        odd: what `is_odd` says of a value, in words; empty where it says nothing.
    """

    is_embedded = True
    is_sequence = False
    is_float = False
    has_vocabulary = False
    has_unknown_row = False
    is_counted = False
    needs_size = False
    odd = ""

    def fits(self, feature, dtype):
        """Whether a column of type `dtype` can become the feature."""
        return dtype == feature.dtype and dtype != "float32"

    @abc.abstractmethod
    def index(self, feature, values, keys=None, checks=None):
        """Model inputs of raw values, see `Feature.index`."""

    def is_odd(self, feature, values, keys=None, checks=None):
        """Bool like `values`: which are to be reported, see `odd`."""
        raise NotImplementedError


class Vocabulary(Kind):
    """A value is known if it occurs in the training split."""

    has_vocabulary = True
    has_unknown_row = True
    is_counted = True
    odd = "unseen in training"

    def index(self, feature, values, keys=None, checks=None):
        index = ids.find_ids(keys, values, checks) + RESERVED
        return tf.cast(index, tf.int32)

    def is_odd(self, feature, values, keys=None, checks=None):
        unseen = self.index(feature, values, keys, checks) == OOV
        return unseen & (values != feature.missing)


class Hash(Kind):
    """Each value has a bucket, which others may share."""

    needs_size = True

    def index(self, feature, values, keys=None, checks=None):
        text = values if values.dtype == tf.string else tf.strings.as_string(values)
        index = tf.strings.to_hash_bucket_fast(text, feature.size) + RESERVED
        return tf.cast(index, tf.int32)


class Integer(Kind):
    """A value is its own index."""

    has_unknown_row = True
    is_counted = True
    needs_size = True
    odd = "out of range"

    def fits(self, feature, dtype):
        return dtype == "int64"

    def index(self, feature, values, keys=None, checks=None):
        inside = (values >= 0) & (values < feature.size)
        return tf.cast(tf.where(inside, values + RESERVED, OOV), tf.int32)

    def is_odd(self, feature, values, keys=None, checks=None):
        return self.index(feature, values) == OOV


class Float(Kind):
    """A number, standardised."""

    is_embedded = False
    is_float = True
    odd = "not finite"

    def fits(self, feature, dtype):
        return dtype in ("float32", "int64")

    def index(self, feature, values, keys=None, checks=None):
        scaled = (values - feature.mean) / feature.std
        scaled = tf.where(tf.math.is_finite(scaled), scaled, 0.0)
        return tf.clip_by_value(scaled, -MAX_DEVIATIONS, MAX_DEVIATIONS)

    def is_odd(self, feature, values, keys=None, checks=None):
        return ~tf.math.is_finite(values)


class Sequence(Kind):
    """A history; its clicks have the indices and embeddings of what it shares."""

    is_embedded = False
    is_sequence = True

    def index(self, feature, values, keys=None, checks=None):
        raise TypeError(f"{feature.name}: clicks have the index of {feature.shares}")


KINDS = {
    "vocabulary": Vocabulary(),
    "hash": Hash(),
    "integer": Integer(),
    "float": Float(),
    "sequence": Sequence(),
}
