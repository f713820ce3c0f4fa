"""What a run of `extract_feature_maps` is told, and what its workers read."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epy

from hccm_tf.atomic import flush, write_text
from hccm_tf.data.feature_maps import METADATA
from hccm_tf.errors import InputError
from hccm_tf.images.places import ALLOWED
from hccm_tf.images.read import decode_images
from hccm_tf.preparation.feature_maps.assembly import link_or_copy
from hccm_tf.preparation.feature_maps.fixed_cnn import (
    estimate_normalization,
    keep_encoder,
)
from hccm_tf.preparation.feature_maps.shards import NAMES, WEIGHTS, remove_attempts

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
SHARD_ROWS = 4_096
# Each shard costs the readers an open file and some microseconds a batch.
MAX_SHARDS = 256
NORMALIZATION_SAMPLE = 256


@dataclasses.dataclass(frozen=True)
class CnnOptions:
    """What determines the map of an image; `None` as in the old store or `DEFAULTS`.

    Args:
        backbone: key of `hccm_tf.models.backbones.BACKBONES`.
        weights: `"imagenet"`, `"random"` or a path.
        image_size: height and width in pixels of the CNN's input.
        layer: name of the backbone's last layer to keep; by default its own choice.
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
    if old is None:
        settings = DEFAULTS | asked
        default = backbones.BACKBONES.get(settings["backbone"])
        settings["layer"] = settings["layer"] or default
        return settings
    try:
        settings = {name: old.metadata[name] for name in DEFAULTS}
        old.metadata["moments"], old.metadata["crc32"]
    except KeyError as error:
        raise InputError(
            f"extend={old.path}: {METADATA} has no {error}; extract the feature maps "
            "again"
        ) from error
    for name, value in asked.items():
        if value != settings[name]:
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
    if settings["weights"] == "random":
        sample = decode_images(
            images[:NORMALIZATION_SAMPLE],
            settings["image_dir"],
            settings["image_size"],
            settings["max_pixels"],
            **{name: settings[name] for name in ALLOWED},
        )
        sample = [pixels for pixels, reason in sample if reason is None]
        if not sample:
            raise InputError("weights=random needs at least one readable image")
        estimate_normalization(model, sample)
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
        before = {**dict.fromkeys(ALLOWED, False), **before}
        changed = sorted(k for k in settings if before.get(k) != settings[k])
        if changed:
            raise InputError(
                f"{folder} is what an interrupted run with another "
                f"{', '.join(changed)} left: remove it, or repeat that run's flags"
            )
        return {name: before[name] for name in ("weights_sha256", "shape")}
    prepared = _prepare_cnn(folder, settings, old, images)
    work.mkdir(exist_ok=True)
    rows = max(SHARD_ROWS, -(-len(images) // MAX_SHARDS))
    table = pa.table({"image": pa.array(images, pa.string())})
    pq.write_table(table, work / NAMES, row_group_size=rows)
    # What a resumed run finds settings of is there.
    flush(folder)
    write_text(settings_file, json.dumps({**settings, **prepared}))
    return prepared


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
    """Puts the weights into the store; what `prepare` returns."""
    # It may be a link to those of an old store.
    (folder / WEIGHTS).unlink(missing_ok=True)
    if old is not None:
        link_or_copy(old.path / WEIGHTS, folder / WEIGHTS)
        return {
            "weights_sha256": old.metadata["weights_sha256"],
            "shape": old.shape,
        }
    model = _load_fixed_cnn(settings, images)
    model.save_weights(folder / WEIGHTS)
    digest = keep_encoder(
        model, settings["backbone"], settings["image_size"], settings["layer"]
    )
    return {"weights_sha256": digest, "shape": model.output_shape[1:]}
