"""A feature of the schema, which says what it is: nobody else compares its kind."""

import dataclasses
import numbers

import numpy as np

from hccm_tf.data import ids
from hccm_tf.data.column_names import input_name
from hccm_tf.data.feature_kinds import KINDS, RESERVED
from hccm_tf.errors import InputError

MISSING_INTEGER = np.iinfo(np.int64).min
# What stands for a missing value, by the dtype of a column.
MISSING = {"int64": MISSING_INTEGER, "string": "", "float32": np.nan}
# Of 32 bits, as Python's, which compare with integers of any size.
SMALLEST, LARGEST = (float(getattr(np.finfo("f4"), n)) for n in ("tiny", "max"))
# Rows of an embedding table have indices of 32 bits.
MAX_SIZE = np.iinfo(np.int32).max - RESERVED


def _is_text(value):
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:
        return False


def _is_count(value):
    return type(value) is int and 0 <= value <= MAX_SIZE


def _is_number(value):
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_real and abs(value) <= LARGEST


# What the fields of a feature must be, in words and as a function.
FIELDS = {
    "name": ("text", _is_text),
    "kind": (f"one of {tuple(KINDS)}", lambda v: _is_text(v) and v in KINDS),
    "dtype": (f"one of {tuple(MISSING)}", lambda v: _is_text(v) and v in MISSING),
    "size": (f"a number of values, at most {MAX_SIZE}", _is_count),
    "embedding_dim": ("a number of columns", lambda v: _is_count(v) and v > 0),
    "shares": ("the name of a feature", _is_text),
    "mean": ("a number", _is_number),
    "std": ("a number above 0", lambda v: _is_number(v) and v >= SMALLEST),
    "frequency": ("a number", _is_number),
    "candidate": ("true or false", lambda v: type(v) is bool),
    "item": ("true or false", lambda v: type(v) is bool),
}
HISTORY = "history_"
HISTORY_IMAGE = HISTORY + "image"


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of the schema.

    Args:
        name: the column; a `sequence` is called `history_<column>`.
        kind: one of `KINDS`, see `hccm_tf.data.feature_kinds`.
        dtype: `"int64"`, `"string"` or `"float32"`, as in the log.
        size: number of values (`vocabulary`), buckets (`hash`) or integers.
        embedding_dim: width of the embedding; `None` for the model's default.
        shares: the feature whose values and embedding a `sequence` shares.
        mean: of a `float`, over the training split.
        std: of a `float`, over the training split.
        frequency: of a `vocabulary` or `integer`: how often a value occurs in the
            training split, the mean over the values that do.
        candidate: whether it may differ within a request, as all columns of the items
            do, and is not one of user or context.
        item: whether it is a column of the items, which `item_id` tells.
    """

    name: str
    kind: str
    dtype: str = "int64"
    size: int | None = None
    embedding_dim: int | None = None
    shares: str | None = None
    mean: float = 0.0
    std: float = 1.0
    frequency: float | None = None
    candidate: bool = False
    item: bool = False

    def __post_init__(self):
        self._check_types()
        if self._kind.needs_size and not self.size:
            raise InputError(f"feature {self.name}: kind {self.kind} needs a size")
        if self.is_sequence and self.name != f"{HISTORY}{self.shares}":
            raise InputError(
                f"feature {self.name}: a sequence that shares {self.shares} is called "
                f"{HISTORY}{self.shares}"
            )

    def _check_types(self):
        """Raises an `InputError` for a field that is not what it must be."""
        for name, (expected, is_right) in FIELDS.items():
            value = getattr(self, name)
            default = getattr(Feature, name, dataclasses.MISSING)
            if value != default and not is_right(value):
                raise InputError(
                    f"feature {self.name}: {name} is {expected}. Received: {value!r}"
                )

    @property
    def _kind(self):
        return KINDS[self.kind]

    @property
    def input_name(self):
        """What its input is called, see `hccm_tf.data.column_names`."""
        return input_name(self.name)

    @property
    def is_embedded(self):
        """Whether its values are indices into an embedding table of its own."""
        return self._kind.is_embedded

    @property
    def is_sequence(self):
        """Whether it is a history, of a feature that it shares."""
        return self._kind.is_sequence

    @property
    def is_float(self):
        """Whether it is a number, standardised by `mean` and `std`."""
        return self._kind.is_float

    @property
    def has_vocabulary(self):
        """Whether the training split's values are kept as sorted keys."""
        return self._kind.has_vocabulary

    @property
    def has_unknown_row(self):
        """Whether index 1, out-of-vocabulary, occurs."""
        return self._kind.has_unknown_row

    @property
    def is_counted(self):
        """Whether it is counted how often values occur in training: `frequency`."""
        return self._kind.is_counted

    @property
    def needs_size(self):
        """Whether `size` is told, and not that of what was found in training."""
        return self._kind.needs_size

    @property
    def input_dtype(self):
        """Type of the model's input."""
        return "float32" if self.is_float else "int32"

    @property
    def num_rows(self):
        """Rows of its embedding table, the two reserved ones included."""
        return self.size + RESERVED

    @property
    def missing(self):
        """The raw value that stands for a missing one."""
        # An image is a key in the examples, whatever its name was.
        return ids.NO_IMAGE if self.name == "image" else MISSING[self.dtype]

    def fits(self, dtype):
        """Whether a column of type `dtype`, such as `"int64"`, can become it."""
        return self._kind.fits(self, dtype)

    def index(self, values, keys=None, checks=None):
        """Indices (or standardised floats) of raw values, in graph operations.

        Args:
            values: tensor of any shape, of the feature's dtype; of one click each for
                what a sequence shares.
            keys: sorted int64 keys of the vocabulary, if it has one.
            checks: of its strings, see `hccm_tf.data.ids.find_ids`.

        Returns:
            tensor of the same shape, of `input_dtype`.
        """
        return self._kind.index(self, values, keys, checks)

    @property
    def odd(self):
        """What is to be reported of raw values, in words, or empty; see `is_odd`."""
        return self._kind.odd

    def is_odd(self, values, keys=None, checks=None):
        """Which raw values are `odd`, in graph operations; arguments as of `index`."""
        return self._kind.is_odd(self, values, keys, checks)
