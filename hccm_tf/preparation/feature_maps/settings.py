"""What a run of `extract_feature_maps` is told, and what its workers read."""

import dataclasses
import json
import pathlib
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epy

from hccm_tf.atomic import flush, write_text
from hccm_tf.data.feature_maps import METADATA
from hccm_tf.errors import InputError
from hccm_tf.images.places import ALLOWED
from hccm_tf.images.read import decode_images
from hccm_tf.preparation.feature_maps import own_cnn
from hccm_tf.preparation.feature_maps.assembly import link_or_copy
from hccm_tf.preparation.feature_maps.fixed_cnn import (
    OWN,
    WEIGHTS,
    cnn_file,
    estimate_normalization,
    keep_encoder,
    normalizations,
    weights_digest,
)
from hccm_tf.preparation.feature_maps.shards import NAMES, remove_attempts

with epy.lazy_imports():
    import keras

    from hccm_tf.models import backbones

DEFAULTS = {
    "backbone": "MobileNetV3Small",
    "weights": "imagenet",
    "image_size": 224,
    "layer": None,
    "dtype": "float16",
    "seed": 0,
}
# What `weights` is in a store that was imported.
IMPORTED = "imported"
SHARD_ROWS = 4_096
# Each shard costs the readers an open file and some microseconds a batch.
MAX_SHARDS = 256
NORMALIZATION_SAMPLE = 256


@dataclasses.dataclass(frozen=True)
class CnnOptions:
    """What determines the map of an image; `None` as in the old store or `DEFAULTS`.

    Args:
        backbone: name of a CNN of `keras.applications`, or the path of a `.keras` file,
            see `hccm_tf.preparation.feature_maps.own_cnn`.
        weights: `"imagenet"`, `"random"` or a path; none for a file.
        image_size: height and width in pixels of the CNN's input; by default the
            file's.
        layer: name of the backbone's last layer to keep; by default that of
            `hccm_tf.models.backbones.default_layer`, or a file's last one.
        dtype: `"float16"`, or `"int8"` with a scale for each channel of each map.
        seed: of random weights.
    """

    backbone: str | None = None
    weights: str | None = None
    image_size: int | None = None
    layer: str | None = None
    dtype: str | None = None
    seed: int | None = None


def cnn_settings(options, old):
    """What determines the maps: as asked, or as in the old store; dict.

    Args:
        options: `CnnOptions`.
        old: `FeatureMapStore` that is extended, or `None`.

    Raises:
        InputError: if the two contradict each other.
    """
    asked = {k: v for k, v in dataclasses.asdict(options).items() if v is not None}
    if old is not None:
        return _settings_of(old, asked)
    settings = DEFAULTS | asked
    if own_cnn.is_own(settings["backbone"]):
        settings = own_cnn.describe(settings["backbone"], asked, DEFAULTS)
    elif settings["layer"] is None:
        names = settings["backbone"], settings["image_size"]
        settings["layer"] = backbones.default_layer(*names)
    if options.layer is None:
        print(f"layer={settings['layer']}: after it {settings['backbone']} is cut")
    return settings


def _settings_of(old, asked):
    if old.metadata.get("weights") == IMPORTED:
        raise InputError(
            f"extend: the maps of {old.path} were imported; import_feature_maps "
            "extends it"
        )
    try:
        settings = {name: old.metadata[name] for name in DEFAULTS}
        old.metadata["moments"], old.metadata["crc32"]
        digest = old.metadata["weights_sha256"]
    except KeyError as error:
        raise InputError(
            f"extend={old.path}: {METADATA} has no {error}; extract the feature maps "
            "again"
        ) from error
    for name, value in asked.items():
        same = value == settings[name]
        if name == "backbone" and own_cnn.is_own(value):
            same = pathlib.Path(value).is_file() and own_cnn.digest(value) == digest
        if not same:
            raise InputError(
                f"{name}={value} contradicts the old store, {old.path}, whose {name} "
                f"is {settings[name]}: leave it out"
            )
    return settings


def _load_fixed_cnn(settings, images):
    keras.utils.set_random_seed(settings["seed"])
    model = backbones.load_backbone(
        settings["backbone"],
        settings["weights"],
        settings["image_size"],
        settings["layer"],
    )
    if settings["weights"] == "random" and normalizations(model):
        sample = decode_images(
            images[:NORMALIZATION_SAMPLE],
            settings["image_dir"],
            settings["image_size"],
            settings["max_pixels"],
            **{name: settings[name] for name in ALLOWED},
        )
        sample = [*sample]
        readable = [pixels for pixels, reason in sample if reason is None]
        if not readable:
            first = f"; {images[0]}: {sample[0][1]}" if sample else ""
            raise InputError(f"weights=random needs at least one readable image{first}")
        estimate_normalization(model, readable)
    return model


def prepare(folder, work, settings, old, images):
    """Writes what the workers read, unless an interrupted run has done that.

    Args:
        folder: the store's folder.
        work: folder of the run.
        settings: dict, `cnn_settings` and what else must not change before a run goes
            on.
        old: `FeatureMapStore` that is extended, or `None`.
        images: object array of names.

    Returns:
        dict, `weights_sha256` of the fixed CNN and `shape` of its maps.

    Raises:
        InputError: if the folder is of an interrupted run with other settings.
    """
    settings_file = work / "settings.json"
    if settings_file.exists():
        before = _read_settings(settings_file, folder)
        remove_attempts(work)
        changed = sorted(k for k in settings if before.get(k) != settings[k])
        if changed:
            raise InputError(
                f"{folder} is what an interrupted run with another "
                f"{', '.join(changed)} left: remove it, or repeat that run's flags"
            )
        return {name: before[name] for name in ("weights_sha256", "shape")}
    prepared = _prepare_cnn(folder, settings, old, images)
    work.mkdir(exist_ok=True)
    write_names(work, images)
    # What a resumed run finds settings of is there.
    flush(folder)
    write_text(settings_file, json.dumps({**settings, **prepared}))
    return prepared


def write_names(work, images):
    """Writes the names of a run's images, one row group a shard.

    Args:
        work: folder of the run.
        images: object array of names.

    Returns:
        Number of images in each shard but the last.
    """
    rows = max(SHARD_ROWS, -(-len(images) // MAX_SHARDS))
    table = pa.table({"image": pa.array(images, pa.string())})
    pq.write_table(table, work / NAMES, row_group_size=rows)
    return rows


def _read_settings(path, folder):
    try:
        settings = json.loads(path.read_text())
        settings["weights_sha256"], settings["shape"]  # noqa: B018, both are there
        return settings
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged ({error!r}); remove {folder}, the run begins again"
        ) from error


def _prepare_cnn(folder, settings, old, images):
    """Puts the fixed CNN into the store; what `prepare` returns."""
    # They may be links to those of an old store.
    for name in (WEIGHTS, OWN):
        (folder / name).unlink(missing_ok=True)
    file = cnn_file(folder, settings["backbone"])
    if old is not None:
        link_or_copy(cnn_file(old.path, settings["backbone"]), file)
        return {
            "weights_sha256": old.metadata["weights_sha256"],
            "shape": old.shape,
        }
    if own_cnn.is_own(settings["backbone"]):
        shutil.copyfile(settings["backbone_file"], file)
        of_cnn = file, settings["image_size"], settings["layer"]
        model, digest = own_cnn.load_own_cnn(*of_cnn), own_cnn.digest(file)
    else:
        model = _load_fixed_cnn(settings, images)
        model.save_weights(file)
        digest = weights_digest(model)
    names = ("backbone", "image_size", "layer")
    keep_encoder(model, digest, *(settings[name] for name in names))
    return {"weights_sha256": digest, "shape": model.output_shape[1:]}
