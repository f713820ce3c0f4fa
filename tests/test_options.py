import dataclasses
import typing

import numpy as np
import pytest

from hccm_tf.options import Options, describe, kind_of, option
from tests import annotated_options


@dataclasses.dataclass(frozen=True)
class Kinds(Options):
    """One of each kind."""

    flag: bool = option(False, "Whether it is so.")
    whole: int = option(3, "A count.", lower=1)
    real: float = option(0.5, "A share.", lower=0, upper=1)
    free: float = option(-1.0, "Any number.")
    text: str = option("red", "The colour: {choices}.", ("red", "green"))
    widths: tuple = option((4, 2), "Widths.", lower=1)
    tags: list = option(("a",), "Tags.")
    cut: int | None = option(None, "Where to cut; by default nowhere.", lower=1)
    path: str | None = option(None, "A file.")


@dataclasses.dataclass(frozen=True)
class More(Kinds):
    """One more, and another default."""

    whole: int = option(5, "A count.", lower=5)
    last: str = option("", "Any text.", needs="is_deep")


def test_defaults_are_values():
    options = Kinds()
    assert (options.flag, options.whole, options.real) == (False, 3, 0.5)
    assert (options.widths, options.tags) == ((4, 2), ("a",))
    assert (options.cut, options.path) == (None, None)
    assert options == Kinds.of({}, "kinds") and hash(options) == hash(Kinds())
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.whole = 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flag", True),
        ("whole", 1),
        ("real", 0),
        ("real", 1.0),
        ("free", -1e30),
        ("text", "green"),
        ("widths", (1,)),
        ("tags", ("b", "a", "b")),
        ("cut", 1),
        ("cut", None),
        ("path", "folder/file"),
        ("path", ""),
    ],
)
def test_values_of_each_kind(name, value):
    assert getattr(Kinds(**{name: value}), name) == value
    assert getattr(Kinds.of({name: value}, "kinds"), name) == value


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("widths", [8, 4], (8, 4)),
        ("widths", [np.int64(8)], (8,)),
        ("widths", np.array([8, 4]), (8, 4)),
        ("tags", ["x", "y"], ("x", "y")),
        ("whole", np.int32(7), 7),
        ("real", np.float32(0.25), 0.25),
        ("flag", np.bool_(True), True),
    ],
)
def test_lists_and_numpys_values_become_pythons(name, given, value):
    found = getattr(Kinds(**{name: given}), name)
    assert found == value and type(found) is type(value)
    if isinstance(value, tuple):
        assert [type(entry) for entry in found] == [type(entry) for entry in value]
    assert hash(Kinds(**{name: given})) == hash(Kinds(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("flag", 1, "true or false"),
        ("flag", "false", "true or false"),
        ("flag", None, "true or false"),
        ("whole", 0, "an integer from 1 on"),
        ("whole", 3.0, "an integer from 1 on"),
        ("whole", True, "an integer from 1 on"),
        ("whole", None, "an integer from 1 on"),
        ("real", -0.1, "a number from 0 to 1"),
        ("real", 1.1, "a number from 0 to 1"),
        ("real", float("nan"), "a number from 0 to 1"),
        ("real", False, "a number from 0 to 1"),
        ("real", "0.5", "a number from 0 to 1"),
        ("free", "many", "a number"),
        ("free", float("nan"), "a number"),
        ("free", float("inf"), "a number"),
        ("text", "blue", "one of red, green"),
        ("text", None, "one of red, green"),
        ("text", 3, "one of red, green"),
        ("widths", (), "integers from 1 on"),
        ("widths", (4, 0), "integers from 1 on"),
        ("widths", (4, 2.0), "integers from 1 on"),
        ("widths", (True,), "integers from 1 on"),
        ("widths", 4, "integers from 1 on"),
        ("widths", "44", "integers from 1 on"),
        ("widths", ((4,), 2), "integers from 1 on"),
        ("tags", (), "texts"),
        ("tags", ("a", 1), "texts"),
        ("tags", "a", "texts"),
        ("cut", 0, "an integer from 1 on"),
        ("cut", "2", "an integer from 1 on"),
        ("path", 7, "a text"),
    ],
)
def test_values_that_do_not_fit_are_named(name, value, wanted):
    with pytest.raises(ValueError) as error:
        Kinds(**{name: value})
    assert str(error.value) == f"{name}: {wanted}. Received: {value!r}"
    with pytest.raises(ValueError, match=f"^{name}: "):
        Kinds.of({name: value}, "kinds")


def test_replacing_checks_again():
    options = dataclasses.replace(Kinds(), widths=[3])
    assert options.widths == (3,)
    with pytest.raises(ValueError, match="^whole: an integer from 1 on. Received: 0$"):
        dataclasses.replace(options, whole=0)


def test_unknown_names_are_listed_with_those_that_there_are():
    with pytest.raises(TypeError) as error:
        Kinds.of({"whole": 3, "widht": 4, "Flag": True}, "model deep")
    assert str(error.value) == (
        "model deep does not read Flag, widht. It reads: flag, whole, real, free, "
        "text, widths, tags, cut, path"
    )
    with pytest.raises(TypeError, match="widht"):
        Kinds(widht=4)


def test_subclasses_have_the_options_of_their_base():
    assert More.names() == (*Kinds.names(), "last")
    assert More().whole == 5
    with pytest.raises(ValueError, match="^whole: an integer from 5 on. Received: 4$"):
        More(whole=4)
    with pytest.raises(ValueError, match="^real: "):
        More(real=2)
    with pytest.raises(TypeError, match="^kinds does not read last"):
        Kinds.of({"last": ""}, "kinds")


def test_what_the_fields_tell():
    fields = {field.name: field for field in dataclasses.fields(More)}
    kinds = [kind_of(fields[name]) for name in Kinds.names()]
    assert kinds == [bool, int, float, float, str, tuple, list, int, str]
    assert describe(fields["text"]) == "The colour: red, green."
    assert describe(fields["real"]) == "A share."
    assert fields["last"].metadata["needs"] == "is_deep"
    assert fields["whole"].metadata["needs"] is None


def test_types_may_be_written_otherwise():
    """As `Optional`, or as text where a module's annotations are not evaluated."""

    @dataclasses.dataclass(frozen=True)
    class Old(Options):
        cut: typing.Optional[int] = option(None, "Where.", lower=1)  # noqa: UP045

    for options in (Old, annotated_options.Later):
        (field,) = dataclasses.fields(options)
        assert kind_of(field) is int
        assert options().cut is None and options(cut=2).cut == 2
        with pytest.raises(ValueError, match="^cut: an integer from 1 on. Received: 0"):
            options(cut=0)
