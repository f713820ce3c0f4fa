"""What a run of `extract_feature_maps` is told, and what its workers read."""

import json

import keras
import pyarrow as pa
import pyarrow.parquet as pq

from hccm_tf.atomic import new_file
from hccm_tf.data.feature_maps import METADATA
from hccm_tf.errors import InputError
from hccm_tf.models.backbones import BACKBONES, load_backbone
from hccm_tf.preparation.feature_maps.assembly import link_or_copy
from hccm_tf.preparation.feature_maps.fixed_cnn import (
    estimate_normalization,
    keep_encoder,
)
from hccm_tf.preparation.feature_maps.shards import NAMES, WEIGHTS
from hccm_tf.preparation.images import decode_images

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


def cnn_settings(asked, old):
    """What determines the maps of an image: as asked, or as in the old store.

    Raises:
        InputError: if the two contradict each other.
    """
    asked = {name: value for name, value in asked.items() if value is not None}
    if old is None:
        settings = DEFAULTS | asked
        settings["layer"] = settings["layer"] or BACKBONES.get(settings["backbone"])
        return settings
    try:
        settings = {name: old.metadata[name] for name in DEFAULTS}
        old.metadata["moments"], old.metadata["crc32"]
    except KeyError as error:
        raise InputError(
            f"--extend={old.path}: {METADATA} has no {error}; extract the feature maps "
            "again"
        ) from error
    for name, value in asked.items():
        if value != settings[name]:
            raise InputError(
                f"--{name}={value} contradicts --extend={old.path}, whose {name} is "
                f"{settings[name]}: leave the flag out"
            )
    return settings


def _load_fixed_cnn(settings, images):
    keras.utils.set_random_seed(settings["seed"])
    model = load_backbone(
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
        )
        sample = [pixels for pixels, reason in sample if reason is None]
        if not sample:
            raise InputError("--weights=random needs at least one readable image")
        estimate_normalization(model, sample)
    return model


def prepare(folder, work, settings, old, images):
    """Writes what the workers read, unless an interrupted run has done that.

    Returns:
        `(weights_sha256, shape)` of the fixed CNN and its maps.

    Raises:
        InputError: if the folder is of an interrupted run with other settings.
    """
    settings_file = work / "settings.json"
    if settings_file.exists():
        before = json.loads(settings_file.read_text())
        changed = sorted(k for k in settings if before.get(k) != settings[k])
        if changed:
            raise InputError(
                f"{folder} is what an interrupted run with another "
                f"{', '.join(changed)} left: remove it, or repeat that run's flags"
            )
        return before["weights_sha256"], before["shape"]
    # It may be a link to those of an old store.
    (folder / WEIGHTS).unlink(missing_ok=True)
    if old is not None:
        link_or_copy(old.path / WEIGHTS, folder / WEIGHTS)
        weights_sha256, shape = old.metadata["weights_sha256"], old.shape
    else:
        model = _load_fixed_cnn(settings, images)
        model.save_weights(folder / WEIGHTS)
        shape = model.output_shape[1:]
        weights_sha256 = keep_encoder(
            model, settings["backbone"], settings["image_size"], settings["layer"]
        )
    work.mkdir(exist_ok=True)
    rows = max(SHARD_ROWS, -(-len(images) // MAX_SHARDS))
    table = pa.table({"image": pa.array(images, pa.string())})
    pq.write_table(table, work / NAMES, row_group_size=rows)
    with new_file(settings_file) as prepared:
        prepared.write_text(
            json.dumps({**settings, "weights_sha256": weights_sha256, "shape": shape})
        )
    return weights_sha256, shape
