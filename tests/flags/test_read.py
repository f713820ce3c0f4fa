"""What the command line says: which flags were typed, and the configuration of them."""

import dataclasses
import os
import pathlib

import pytest
from absl import flags

from hccm_tf.configuration import (
    Configuration,
    TrainingSettings,
    configure,
    readable,
    to_flagfile,
)
from hccm_tf.errors import InputError
from hccm_tf.flags.read import parse, read_configuration_flags, typed
from hccm_tf.models import CHOICES, find_model
from hccm_tf.options import kind_of

MINE = "tests.flags.my_model:MyModel"


def parsed(*words):
    """The flags of a command line, which has no words beside them."""
    values = flags.FlagValues()
    assert parse(values, ["train_main.py", *words]) == ["train_main.py"]
    return values


def read(*words):
    """The configuration that a command line makes."""
    return read_configuration_flags(parsed(*words), typed(parsed(*words), words))


def another(field):
    """A value of an option that is not its default."""
    choices, kind = field.metadata["choices"], kind_of(field)
    if choices is not None:
        return next(choice for choice in choices if choice != field.default)
    if kind is bool:
        return not field.default
    if kind is tuple:
        return tuple(entry + 1 for entry in field.default)
    if kind is float:
        return 0.123456789012345678 if field.default != 0.1 else 0.2
    if kind is int:
        value = field.default or field.metadata["lower"] or 0
        # An image's vector has as many parts as another option says.
        return 2 * value if field.name == "image_embedding_dim" else value + 1
    return "another text"


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("name", [*CHOICES, MINE])
def test_a_flagfile_makes_the_same_configuration(tmp_path, name, changed):
    model = find_model(name)
    given = {}
    if changed:
        fields = dataclasses.fields(model.Options)
        fields += dataclasses.fields(TrainingSettings)
        given = {f.name: another(f) for f in fields if f.name in readable(model)}
    folders = {"data_dir": "some data"}
    if model.has_images:
        folders["image_dir" if model.takes_pixels else "feature_maps"] = "maps"
    relative = configure(name, given, **folders, run_dir="RUN", strategy="mirrored")
    # It is the same from another working directory.
    folders = {name: os.path.join(os.getcwd(), path) for name, path in folders.items()}
    expected = dataclasses.replace(relative, **folders)
    (tmp_path / "run.flags").write_text(to_flagfile(relative))
    assert read(f"--flagfile={tmp_path / 'run.flags'}", "--run_dir=RUN") == expected
    assert set(expected.values()) == set(readable(model))
    if changed:
        default = configure(name, {}).values()
        assert all(expected.values()[option] != default[option] for option in default)


def test_json_makes_the_same_configuration():
    for name in (*CHOICES, MINE):
        configuration = configure(name, {"seed": 25}, data_dir=pathlib.Path("D"))
        again = Configuration.from_json(configuration.to_json())
        here = os.path.join(os.getcwd(), "D")
        assert again == dataclasses.replace(configuration, data_dir=here)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--dropout=0.1"], {"dropout"}),
        (["-dropout=0.1"], {"dropout"}),
        (["--dropout", "0.1"], {"dropout"}),
        (["-dropout", "0.1"], {"dropout"}),
        (["--products"], {"products"}),
        (["-products"], {"products"}),
        (["--noproducts"], {"products"}),
        (["-noproducts"], {"products"}),
        (["--products=false"], {"products"}),
        (["--seed", "-3", "--dropout=0"], {"seed", "dropout"}),
        (["--seed=-3"], {"seed"}),
        (["--flagfile=FILE", "--model=din"], {"model"}),
        (["--data_dir=dropout"], {"data_dir"}),
        (["--data_dir", "dropout"], {"data_dir"}),
        ([], set()),
    ],
)
def test_flags_that_are_typed(tmp_path, words, names):
    file = tmp_path / "shared.flags"
    file.write_text("--epochs=3\n--similarity=cosine\n")
    words = [word.replace("FILE", str(file)) for word in words]
    assert typed(parsed(*words), words) == names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--no_such_flag=1"], "no_such_flag"),
        (["--dropout=2"], "dropout"),
        (["--dropout=much"], "dropout"),
        (["--similarity=dot"], "similarity.*none.*cosine.*histogram"),
        (["--products=perhaps"], "products"),
        (["--epochs=-1"], "epochs"),
        (["--dropout"], "dropout"),
        (["--flagfile=no_such.flags"], r"no_such\.flags"),
        (["--model=deep"], "--model: model is one of .*hccm.*deep"),
        (["--model=no_such_module:Model"], "--model: model no_such_module:Model: "),
        (["--model=tests.flags.my_model:No"], "--model: .*has no attribute 'No'"),
        (["--model=tests.flags.my_model:MINE"], "--model: "),
        (["--model=json:JSONDecoder"], "--model: .*a subclass of hccm_tf.models.Model"),
        (["--model=hcm", "--cnn_filters=8,wide"], "^cnn_filters: integers.*wide"),
        (["--model=hcm", "--cnn_filters=8"], "cnn_filters: one width for each"),
        (["--model=hcm", "--hidden_units=0"], "hidden_units: integers from 1 on"),
        (["--model=hcm", "--hidden_units="], "hidden_units: "),
        (["--from_run=A", "--warm_start_from=B"], "--from_run takes .*give one"),
        (["--warm_start_from=no_such_run"], r"no_such_run/run\.json"),
    ],
)
def test_what_is_wrong_is_named(words, message):
    with pytest.raises(InputError, match=message) as error:
        read("--data_dir=DATA", "--run_dir=RUN", *words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["data_dir", "run_dir"])
def test_folders_that_a_run_needs(missing):
    words = [f"--{n}=X" for n in ("data_dir", "run_dir") if n != missing]
    with pytest.raises(InputError, match=f"^--{missing}: "):
        read("--model=din", *words)


@pytest.mark.parametrize(
    ("model", "flag"),
    [
        ("din", "--cnn_filters=4,8"),
        ("din", "--similarity=cosine"),
        ("din", "--shuffle_images"),
        ("din", "--noshuffle_categories"),
        ("base", "--noproducts"),
        ("hcm", "--prior_channel"),
        ("hcm", "--shuffle_categories"),
        ("cscnn", "--image_sides=both"),
        ("hccm", "--cnn_backbone=MobileNetV3Large"),
        (MINE, "--products"),
    ],
)
def test_a_flag_that_the_model_does_not_read(tmp_path, capsys, model, flag):
    """Typed, it is an error; of a flagfile, it is named and left out."""
    common = ("--data_dir=DATA", "--run_dir=RUN", f"--model={model}", "--epochs=2")
    name = flag.lstrip("-").removeprefix("no").partition("=")[0]
    its_name = find_model(model).name
    with pytest.raises(InputError) as error:
        read(*common, flag)
    assert str(error.value).startswith(f"--{name}: model {its_name} does not read it")
    for option in readable(find_model(model)):
        assert f"--{option}" in str(error.value)
    assert "\n" not in str(error.value) and not capsys.readouterr().out
    (tmp_path / "shared.flags").write_text(f"{flag}\n--dropout=0.5\n")
    found = read(*common, f"--flagfile={tmp_path / 'shared.flags'}")
    assert found == configure(
        model, {"dropout": 0.5, "epochs": 2}, data_dir="DATA", run_dir="RUN"
    )
    assert capsys.readouterr().out == (
        f"left out of the flagfile: --{name}: model {its_name} does not read it\n"
    )


def test_what_is_typed_counts_more_than_the_flagfile(tmp_path):
    (tmp_path / "shared.flags").write_text("--dropout=0.5\n--model=hcm\n--seed=1\n")
    flagfile = f"--flagfile={tmp_path / 'shared.flags'}"
    folders = ("--data_dir=DATA", "--run_dir=RUN")
    found = read(flagfile, *folders, "--dropout=0.1", "--model=din")
    assert (found.model.name, found.options.dropout) == ("din", 0.1)
    assert found.settings.seed == 1


@pytest.mark.parametrize("written", [[f"--model={MINE}"], ["--model", MINE]])
def test_options_of_a_model_of_ones_own_are_flags(tmp_path, written):
    folders = ("--data_dir=DATA", "--run_dir=RUN")
    found = read("--power=2.5", *folders, *written)
    assert found.options.power == 2.5 and found.model is find_model(MINE)
    with pytest.raises(InputError, match="power"):
        read("--model=din", *folders, "--power=2.5")
    # From a flagfile too, and from the arms of a comparison.
    (tmp_path / "mine.flags").write_text(f"--model={MINE}\n--power=3\n")
    found = read(f"--flagfile={tmp_path / 'mine.flags'}", *folders)
    assert found.options.power == 3.0
    values = parsed(f"--compare=din,{MINE} --power=2", "--power=1.5")
    assert values.power == 1.5
