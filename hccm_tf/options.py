"""Options: name, default, choices and one sentence of help stand in one place.

A class of options is a frozen dataclass whose fields are made by `option`. Whatever
else knows of options reads them off the fields: the check of values, the flags of
`train_main.py` and their help, what a comparison's arm may set, the reference page.
"""

import builtins
import dataclasses
import math
import types
import typing


def option(default, help, choices=None, lower=None, upper=None, needs=None):
    """A field of a class of options.

    Args:
        default: its value unless another is given.
        help: one sentence; it may hold `{choices}`.
        choices: tuple of the values that there are, or `None` for all of the type.
        lower: smallest value of a number, or of each number of a tuple.
        upper: largest value of a number.
        needs: name of the attribute that a model has which reads the option, where not
            all do that have the class of options.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "lower": lower,
        "upper": upper,
        "needs": needs,
    }
    return dataclasses.field(default=default, metadata=metadata)


def kind_of(field):
    """The type of an option; `tuple` is of ints, `list` of str."""
    kinds = typing.get_args(field.type) or (field.type,)
    if isinstance(field.type, str):
        # Of a module that imports `annotations` from `__future__`.
        names = [name.strip() for name in field.type.split("|")]
        kinds = [getattr(builtins, name) for name in names if name != "None"]
    return next(kind for kind in kinds if kind is not types.NoneType)


def describe(field):
    """The sentence of help of an option, str."""
    choices = ", ".join(map(str, field.metadata["choices"] or ()))
    return field.metadata["help"].format(choices=choices)


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of the classes of options.

    Raises:
        ValueError: if a value is not one that its option has; names both.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _plain(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if not (value is None and field.default is None):
                _check(field, value)

    @classmethod
    def names(cls):
        """Names of the options, tuple of str."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def of(cls, values, owner):
        """The options of a dict.

        Args:
            values: dict name → value.
            owner: who has these options, for the error.

        Raises:
            TypeError: if there is no option of a name; lists those that there are.
            ValueError: as the class.
        """
        unknown = sorted(set(values) - set(cls.names()))
        if unknown:
            raise TypeError(
                f"{owner} does not read {', '.join(unknown)}. It reads: "
                f"{', '.join(cls.names())}"
            )
        return cls(**values)


def _plain(value):
    """Lists as tuples, as JSON has none, and what is NumPy's as Python's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_plain(entry) for entry in value)
    return value


def _check(field, value):
    kind, choices = kind_of(field), field.metadata["choices"]
    if kind in (tuple, list):
        of = int if kind is tuple else str
        fits = isinstance(value, tuple) and all(type(entry) is of for entry in value)
        fits &= bool(value)
        numbers = value if kind is tuple and fits else ()
        wanted = "integers" if kind is tuple else "texts"
    else:
        allowed = (int, float) if kind is float else kind
        fits = isinstance(value, allowed) and (kind is bool) == isinstance(value, bool)
        numbers = (value,) if kind in (int, float) and fits else ()
        wanted = {bool: "true or false", int: "an integer", float: "a number"}
        wanted = wanted.get(kind, "a text")
    fits &= all(map(math.isfinite, numbers))
    lower, upper = field.metadata["lower"], field.metadata["upper"]
    if lower is not None:
        fits &= bool(numbers) and all(number >= lower for number in numbers)
        wanted += f" from {lower} on" if upper is None else f" from {lower} to {upper}"
    if upper is not None:
        fits &= all(number <= upper for number in numbers)
    if choices is not None:
        fits &= value in choices
        wanted = f"one of {', '.join(map(str, choices))}"
    if not fits:
        raise ValueError(f"{field.name}: {wanted}. Received: {value!r}")
