"""Writes the file that tells TensorFlow Serving which versions of which models it has.

    python -m hccm_tf.serving.server_config --models_dir=saved_models --stable=hccm:3

Each model gets two labels for clients to ask for: `canary` is the newest version,
`stable` the one that --stable names, otherwise the one before the newest.

A running server refuses to move a label to a version that it has not loaded, and then
takes nothing of the file. So a new version is first listed without a label, and the
labels move with the next run of the same command, once the server has loaded it. A run
that comes before that leaves a file that the server refuses: restart it then.

A version that is not whole, as while it is copied, is named and left out: the server
would refuse the whole file for it.
"""

import pathlib

from absl import flags
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from hccm_tf.atomic import check_can_make, write_text
from hccm_tf.commands import run
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.serving.versions import versions
from hccm_tf.serving.whole import missing

FLAGS = flags.FLAGS
FILE = "models.config"


def write_server_config(models_dir, stable=(), base_path="/models"):
    """Writes `models_dir/models.config`, of which it keeps what a server has loaded.

    Args:
        models_dir: folder of `<name>/<version>/`.
        stable: list of `"name:version"`.
        base_path: `models_dir` as the server sees it.

    Returns:
        list of str, what to tell the user about each model.

    Raises:
        InputError: if there is no version, `stable` names none of them, or the file
            that is there cannot be read.
    """
    models, lines = _whole_versions(models_dir)
    if not models:
        raise InputError(
            "models_dir: a folder of <name>/<version>/, which an export makes. "
            f"Received: {'; '.join([str(models_dir), *lines])}"
        )
    path = pathlib.Path(models_dir) / FILE
    with errors_begin_with("models_dir="):
        check_can_make(path)
    before = _read(path)
    chosen = _parse_stable(stable, models)
    config = model_server_config_pb2.ModelServerConfig()
    for name, numbers in models.items():
        wanted = {
            "canary": numbers[-1],
            "stable": chosen.get(name, numbers[-2:][0]),
        }
        labels = _accepted(wanted, before[name], numbers) if name in before else wanted
        model = config.model_config_list.config.add(
            name=name,
            base_path=f"{base_path.rstrip('/')}/{name}",
            model_platform="tensorflow",
            version_labels=labels,
        )
        served = sorted({*wanted.values(), *labels.values()})
        model.model_version_policy.specific.versions.extend(served)
        lines += _tell(name, labels, wanted, served)
    write_text(path, text_format.MessageToString(config))
    return lines


def _whole_versions(models_dir):
    """Name → numbers of the versions that are whole; and lines about the others."""
    models, lines = {}, []
    for path in sorted(pathlib.Path(models_dir).glob("*")):
        for number in versions(path):
            if reason := missing(path / str(number)):
                lines.append(f"{path.name}: version {number} is left out: {reason}")
            else:
                models.setdefault(path.name, []).append(number)
    return models, lines


def _tell(name, labels, wanted, served):
    """What to tell the user about a model, list of str."""
    lines = [f"{name}: stable {labels['stable']}, canary {labels['canary']}"]
    if labels != wanted:
        lines.append(
            f"{name}: once the server has loaded versions {served}, run this again "
            f"for stable {wanted['stable']}, canary {wanted['canary']}"
        )
    return lines


def _read(path):
    """Name → `ModelConfig` of the file that is there, if there is one."""
    config = model_server_config_pb2.ModelServerConfig()
    if path.exists():
        try:
            text_format.Parse(path.read_text(), config)
        except text_format.ParseError as error:
            raise InputError(f"{path}: remove it to start anew. {error}") from error
    return {model.name: model for model in config.model_config_list.config}


def _parse_stable(stable, models):
    """Name → version of `--stable`."""
    chosen = {}
    for entry in stable:
        name, _, version = entry.rpartition(":")
        if name not in models:
            raise InputError(
                f"stable: name:version, with a name of {', '.join(models)}. "
                f"Received: {entry}"
            )
        if version not in map(str, models[name]):
            raise InputError(
                f"stable: {name} has the versions {models[name]}. Received: {entry}"
            )
        chosen[name] = int(version)
    return chosen


def _accepted(wanted, before, there):
    """The wanted labels, those to versions that the server lacks left as they were."""
    loaded = before.model_version_policy.specific.versions
    labels = {k: v for k, v in before.version_labels.items() if v in there}
    return {
        label: version if version in loaded else labels.get(label, version)
        for label, version in wanted.items()
    }


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string(
        "models_dir", "saved_models", "The folder of <name>/<version>/ of each model."
    )
    flags.DEFINE_list(
        "stable",
        [],
        "The stable versions, as name:version with commas between them. By default "
        "the version before the newest.",
    )
    flags.DEFINE_string(
        "base_path", "/models", "The folder --models_dir as the server sees it."
    )


def main(words):
    """Runs the command line."""
    del words
    lines = write_server_config(FLAGS.models_dir, FLAGS.stable, FLAGS.base_path)
    print("\n".join([*lines, f"-> {pathlib.Path(FLAGS.models_dir, FILE)}"]))


if __name__ == "__main__":
    run(main, define_flags)
