"""What a run began with: a resume goes on with the same, or says what differs."""

import json

from hccm_tf.atomic import write_text
from hccm_tf.configuration import FOLDERS, to_flagfile
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.files import crc32
from hccm_tf.images.places import ALLOWED
from hccm_tf.models import name_of
from hccm_tf.run_folder import RunFolder

# More epochs are what a run is resumed for; of images, it is compared what they are.
MAY_DIFFER = ("epochs", *ALLOWED)


def begin(configuration, images):
    """Notes what a run begins with or, where it is resumed, compares it.

    Args:
        configuration: `Configuration` with a `run_dir`.
        images: the `ImageStore` that the model is shown, or `None`.

    Raises:
        InputError: if a run would go on with other options or data than it began with;
            names the first that differs.
    """
    run, now = RunFolder(configuration.run_dir), _beginning(configuration, images)
    if configuration.resume and run.exists():
        _check_same(configuration, _read(run.beginning), now)
        return
    write_text(run.beginning, json.dumps(now, indent=2) + "\n")
    write_text(run.flags, to_flagfile(configuration))


def _beginning(configuration, images):
    """What each step of a run depends on, as JSON holds it; dict.

    Of folders, which may move, it is what they hold.
    """
    options = {"model": name_of(configuration.model), **configuration.values()}
    for name in ("strategy", "warm_start"):
        options[name] = getattr(configuration, name)
    contents = {"data_dir": DataFolder(configuration.data_dir).checksums()}
    if images is not None:
        contents[configuration.images_argument] = images.checksums()
    if configuration.warm_start_from is not None:
        file = RunFolder(configuration.warm_start_from).model
        contents["warm_start_from"] = {file.name: crc32(file)}
    options = {n: value for n, value in options.items() if n not in MAY_DIFFER}
    return json.loads(json.dumps({"options": options, "contents": contents}))


def _read(path):
    try:
        content = json.loads(path.read_text())
        return {name: dict(content[name]) for name in ("options", "contents")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not say what the run began with ({error}); begin in another "
            "folder"
        ) from error


def _check_same(configuration, before, now):
    for name, was in before["options"].items():
        told = now["options"].get(name)
        if told != was:
            raise InputError(
                f"{name}: the run to resume began with {was}; give what its run.flags "
                f"says, or begin in another folder. Received: {told}"
            )
    for name in (*FOLDERS, "warm_start_from"):
        was, found = (side["contents"].get(name, {}) for side in (before, now))
        files = {*was, *found}
        changed = [file for file in files if was.get(file) != found.get(file)]
        if changed:
            raise InputError(
                f"{name}={getattr(configuration, name)}: {min(changed)} is not what "
                f"the run to resume began with ({len(changed)} of {len(files)} files "
                "differ); give what it had, or begin in another folder"
            )
