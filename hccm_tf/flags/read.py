"""Reads the flags: what was given, by whom, and the configuration that it makes."""

import dataclasses
from dataclasses import fields

from absl import flags

from hccm_tf.atomic import check_is_local
from hccm_tf.configuration import (
    DEFAULT_MODEL,
    TrainingSettings,
    configure,
    readable,
)
from hccm_tf.data import feature_maps, folder
from hccm_tf.data.local_copy import local_copy
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.flags.define import define_flags
from hccm_tf.flags.groups import RunOptions
from hccm_tf.images.places import ALLOWED
from hccm_tf.models import CHOICES, find_model, name_of
from hccm_tf.options import kind_of
from hccm_tf.runs import read_configuration

RUN_FOLDERS = ("data_dir", "feature_maps", "image_dir", "run_dir")


def parse(flag_values, argv):
    """Defines and parses the flags, those of models of the user's own too.

    Args:
        flag_values: `absl.flags.FlagValues`, which may have the flags already.
        argv: list of str, the program's name first.

    Returns:
        list of the words that belong to no flag, after the program's name.

    Raises:
        InputError: if a flag is unknown or has no such value.
    """
    define_flags(flag_values, CHOICES.values())
    try:
        words = flag_values.read_flags_from_files(argv[1:], force_gnu=False)
        define_flags(flag_values, own_models(words))
        return flag_values(argv)
    except flags.Error as error:
        raise InputError(str(error)) from error


def own_models(words):
    """Classes of the models outside of the package that a command line names."""
    found = []
    for name in _named_models(words):
        if ":" in name and name not in CHOICES:
            found.append(model_of(name, None))
    return found


def _named_models(words):
    """Names of the models of a run, or of the arms of a comparison.

    Read before their flags are known, which the other words may be.
    """
    values = flags.FlagValues()
    define_flags(values, ())
    values.set_gnu_getopt()
    values(["", *words], known_only=True)
    if values.warm_start_from and not (values.model or values.from_run):
        return [name_of(read_configuration(values.warm_start_from).model)]
    arms = [arm.split()[0] for arm in values.compare or () if arm.strip()]
    return [values.model or DEFAULT_MODEL, *arms]


def typed(flag_values, words):
    """Names of the flags among words of a command line, which a flagfile adds to."""
    found = set()
    for word in words:
        name = word.lstrip("-").partition("=")[0]
        if word.startswith("-"):
            found |= {name, name.removeprefix("no")} & set(flag_values)
    return found


def options_of(options, flag_values):
    """An instance of a class of options; flags that are not given have the default.

    Raises:
        InputError: if an option does not have a value.
    """
    given = {field.name: value_of(flag_values, field) for field in fields(options)}
    try:
        return options(**{name: v for name, v in given.items() if v is not None})
    except ValueError as error:
        raise InputError(str(error)) from error


def value_of(flag_values, field):
    """The value of a flag as its option takes it.

    Raises:
        InputError: if a list of numbers has something else; names the flag.
    """
    value, name = flag_values[field.name].value, field.name
    if value is not None and kind_of(field) is tuple:
        try:
            return tuple(int(entry) for entry in value)
        except ValueError as error:
            raise InputError(
                f"{name}: integers separated by commas. Received: {','.join(value)}"
            ) from error
    return value


def read_configuration_flags(flag_values, typed_names):
    """The `Configuration` of a run, as the flags say.

    What it reads from object stores is copied, once it is clear that all flags fit.

    Args:
        flag_values: `absl.flags.FlagValues`, parsed.
        typed_names: names of the flags on the command line, see `typed`. One that the
            model does not read is an error; one of a flagfile, which models share, is
            named and left out.

    Raises:
        InputError: names the flag to mend.
    """
    run, base = options_of(RunOptions, flag_values), None
    if run.from_run is not None and run.warm_start_from is not None:
        raise InputError(
            "--from_run takes a run as it is, --warm_start_from trains it further: "
            "give one of them"
        )
    if "warm_start" in typed_names and run.warm_start_from is None:
        raise InputError("--warm_start: the run, --warm_start_from, is missing")
    start = run.from_run or run.warm_start_from
    if start is not None:
        base = read_configuration(start)
    model = model_of(run.model, base)
    given = given_options(flag_values, model)
    folders = {name: getattr(run, name) for name in (*RUN_FOLDERS, "resume")}
    if run.from_run is not None:
        allowed = {name: given.pop(name) for name in ALLOWED if name in given}
        unread = [*given, "model"] if run.model is not None else [*given]
        why = f"--from_run={run.from_run} takes the run as it is"
        leave_out(unread, typed_names, why)
        told = _as_it_is(base, run.from_run, run.strategy, folders, allowed)
        return _with_copies(told, run.cache_dir)
    read = readable(model)
    unread = [name for name in given if name not in read]
    why = f"model {model.name} does not read it; it reads --{', --'.join(read)}"
    leave_out(unread, typed_names, why)
    given = {name: value for name, value in given.items() if name in read}
    if folders["data_dir"] is None:
        raise InputError("--data_dir: the folder DATA of build_examples is missing")
    if folders["run_dir"] is None:
        raise InputError("--run_dir: the folder RUN for what the run leaves is missing")
    told = configure(
        model,
        given,
        base,
        warm_start_from=run.warm_start_from,
        warm_start=run.warm_start,
        strategy=run.strategy,
        **folders,
    )
    return _with_copies(told, run.cache_dir)


def leave_out(unread, typed_names, why):
    """Names what is left out of a flagfile; what was typed is an `InputError`."""
    for name in unread:
        if name in typed_names:
            raise InputError(f"--{name}: {why}")
    if unread:
        why = why.partition(";")[0]
        print(f"left out of the flagfile: --{', --'.join(unread)}: {why}")


def model_of(name, base):
    """The class of the model that is named, or that a run has."""
    if name is None:
        return base.model if base is not None else find_model(DEFAULT_MODEL)
    try:
        return find_model(name)
    except ValueError as error:
        raise InputError(f"--model: {error}") from error


def given_options(flag_values, model):
    """The options and settings that are given; dict name → value."""
    classes = [TrainingSettings, model.Options, *(m.Options for m in CHOICES.values())]
    found = {field.name: field for options in classes for field in fields(options)}
    given = {n: value_of(flag_values, f) for n, f in found.items() if n in flag_values}
    return {name: value for name, value in given.items() if value is not None}


def _as_it_is(base, from_run, strategy, folders, allowed):
    """The configuration of a run that is not trained further."""
    given = {name: value for name, value in folders.items() if value is not None}
    return dataclasses.replace(
        base,
        settings=dataclasses.replace(base.settings, epochs=0, **allowed),
        warm_start_from=from_run,
        warm_start="all",
        strategy=strategy,
        **given,
    )


def _with_copies(configuration, cache_dir):
    """The same with copies of DATA and MAPS that are in object stores."""
    if configuration.run_dir is not None:
        with errors_begin_with("run_dir="):
            check_is_local(configuration.run_dir)
    model, needed = configuration.model, {"data_dir": folder.NEEDED}
    if model.has_images and not model.takes_pixels:
        needed["feature_maps"] = feature_maps.NEEDED
    copies = {}
    for name, files in needed.items():
        path = getattr(configuration, name)
        if path is None:
            continue
        # The TFRecords of other stores TensorFlow can read where they are.
        if cache_dir is None and name == "data_dir" and not path.startswith("s3://"):
            continue
        copies[name] = local_copy(path, cache_dir, files)
    return dataclasses.replace(configuration, **copies)
