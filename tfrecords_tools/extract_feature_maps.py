"""Runs the fixed CNN over every image of a catalogue, once (HCCM, Eq. 6-7).

    python -m tfrecords_tools.extract_feature_maps --items=SHOP/items.csv \
        --image_dir=SHOP/images --output_dir=MAPS

The maps appear under MAPS when all of them are there. An interrupted run leaves
MAPS.incomplete, and the same command goes on with the first shard that is not done.
A missing or corrupt image is named in MAPS/skipped.csv and left out of the store:
its items count as items without an image.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from absl import app, flags
from PIL import Image

from hccm_tf import ids
from hccm_tf.atomic import new_folder
from hccm_tf.data.feature_maps import METADATA
from hccm_tf.errors import InputError, report_input_errors
from tfrecords_tools.backbones import (
    BACKBONES,
    estimate_normalization,
    load_backbone,
)
from tfrecords_tools.tables import read_table

SHARD_ROWS = 16_384
BATCH_SIZE = 64
NORMALIZATION_SAMPLE = 256


def decode_image(path, size):
    """Reads an image as RGB of `size` × `size` pixels.

    Returns:
        `(pixels, None)`, uint8 `[size, size, 3]`, or `(None, reason)`.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))
            rgb = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(rgb), None
    except FileNotFoundError:
        return None, "no such file"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return None, f"cannot be decoded: {error}"


def _weights_hash(model):
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _prepare_backbone(folder, settings, read_sample):
    """The backbone of this store.

    It is saved in the folder, so that a resumed run, and images added later, meet
    the same weights.

    Raises:
        InputError: if the folder is of an interrupted run with other settings.
    """
    settings_file = folder / "settings.json"
    weights_file = folder / "backbone.weights.h5"
    arguments = {k: settings[k] for k in ("image_size", "layer")}
    if settings_file.exists():
        before = json.loads(settings_file.read_text())
        changed = sorted(k for k in settings if before.get(k) != settings[k])
        if changed:
            raise InputError(
                f"{folder} is what an interrupted run with another "
                f"{', '.join(changed)} left: remove it, or repeat that run's flags"
            )
        model = load_backbone(settings["backbone"], "random", **arguments)
        model.load_weights(weights_file)
        return model
    keras.utils.set_random_seed(settings["seed"])
    model = load_backbone(settings["backbone"], settings["weights"], **arguments)
    if settings["weights"] == "random":
        sample = read_sample()
        if not sample:
            raise InputError("--weights=random needs at least one readable image")
        estimate_normalization(model, sample)
    model.save_weights(weights_file)
    settings_file.write_text(json.dumps(settings))
    return model


def _write_shard(path, decoded, size, count, encode):
    """Writes one shard and returns {place: reason} of its unreadable images."""
    skipped = {}
    temporary = path.with_suffix(".part")
    with open(temporary, "wb") as handle:
        for start in range(0, count, BATCH_SIZE):
            batch = np.zeros(
                (min(BATCH_SIZE, count - start), size, size, 3), np.float32
            )
            for place in range(len(batch)):
                pixels, reason = next(decoded)
                if reason is None:
                    batch[place] = pixels
                else:
                    skipped[start + place] = reason
            maps = encode(batch).numpy().astype("<f2")
            handle.write(maps.tobytes())
    temporary.rename(path)
    return skipped


def _channel_statistics(paths, shape, keep):
    """Mean and standard deviation of each channel over the maps in `keep`."""
    count, total, squares = 0, 0.0, 0.0
    for path, rows in zip(paths, keep, strict=True):
        maps = np.memmap(path, "<f2", "r").reshape(-1, *shape)
        for start in range(0, len(rows), 1024):
            block = maps[rows[start : start + 1024]].astype(np.float64)
            if not np.isfinite(block).all():
                raise InputError(f"{path}: a feature map overflows float16")
            count += block.size // shape[-1]
            total = total + block.sum((0, 1, 2))
            squares = squares + np.square(block).sum((0, 1, 2))
    mean = total / max(count, 1)
    return mean, np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 1e-12))


def extract_feature_maps(
    images, image_dir, output_dir, backbone, weights, image_size, layer, seed=0
):
    """Writes the feature-map store of `hccm_tf.data.feature_maps`.

    Args:
        images: distinct image names, paths relative to `image_dir`.
        image_dir: folder of the images.
        output_dir: folder to write.
        backbone: key of `BACKBONES`.
        weights: `"imagenet"`, `"random"` or a path.
        image_size: height and width in pixels of the CNN's input.
        layer: name of the backbone's last layer to keep, or `None`.
        seed: of random weights.

    Raises:
        InputError: if a setting is wrong or no image is readable.
    """
    image_dir = pathlib.Path(image_dir)
    if not image_dir.is_dir():
        raise InputError(f"--image_dir: no such folder. Received: {image_dir}")
    keys, order = ids.sorted_unique_keys(images, "image")
    chunks = [images[i : i + SHARD_ROWS] for i in range(0, len(images), SHARD_ROWS)]
    settings = {
        "backbone": backbone,
        "weights": weights,
        "seed": seed,
        "image_dir": str(image_dir.resolve()),
        "image_size": image_size,
        "layer": layer or BACKBONES.get(backbone),
        "images_sha256": hashlib.sha256("\0".join(images).encode()).hexdigest(),
    }
    progress = keras.utils.Progbar(len(images), unit_name="image")
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        new_folder(output_dir, resume=True) as folder,
    ):

        def decode(names):
            return pool.map(
                lambda name: decode_image(image_dir / name, image_size), names
            )

        def read_sample():
            decoded = decode(images[:NORMALIZATION_SAMPLE])
            return [pixels for pixels, _ in decoded if pixels is not None]

        model = _prepare_backbone(folder, settings, read_sample)
        encode = tf.function(
            lambda batch: model(batch, training=False), reduce_retracing=True
        )
        paths, keep, skipped = [], [], []
        for shard, names in enumerate(chunks):
            path = folder / f"feature_maps-{shard:05d}-of-{len(chunks):05d}.f16"
            report = folder / f"skipped-{shard:05d}.json"
            if not (path.exists() and report.exists()):
                bad = _write_shard(path, decode(names), image_size, len(names), encode)
                report.write_text(json.dumps(bad))
            bad = {int(k): v for k, v in json.loads(report.read_text()).items()}
            skipped += [(names[place], reason) for place, reason in bad.items()]
            paths.append(path)
            keep.append(np.setdiff1d(np.arange(len(names)), list(bad)))
            progress.add(len(names))
        if len(skipped) == len(images):
            # Nothing here is worth going on with.
            for file in folder.iterdir():
                file.unlink()
            raise InputError(
                f"{image_dir}: none of {len(images)} images is readable; the first: "
                f"{skipped[0] if skipped else None}"
            )
        shape = model.output_shape[1:]
        mean, std = _channel_statistics(paths, shape, keep)
        good = ~np.isin(
            np.asarray(images, object)[order], [name for name, _ in skipped]
        )
        pq.write_table(
            pa.table(
                {
                    "image": np.asarray(images, object)[order][good],
                    "key": keys[good],
                    "row": order[good],
                }
            ),
            folder / "images.parquet",
        )
        pd.DataFrame(skipped, columns=["image", "reason"]).to_csv(
            folder / "skipped.csv", index=False
        )
        metadata = {
            **settings,
            "weights_sha256": _weights_hash(model),
            "shape": shape,
            "dtype": "float16",
            "count": int(good.sum()),
            "shard_rows": [len(names) for names in chunks],
            "channel_mean": mean.tolist(),
            "channel_std": std.tolist(),
        }
        (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
    print(
        f"{int(good.sum())} feature maps {shape}, {len(skipped)} images skipped "
        f"-> {output_dir}"
    )


def main(argv):
    """Runs the command line."""
    del argv
    with report_input_errors():
        items = read_table(FLAGS.items, ["item_id", "image"])
        names = pd.unique(items.image[items.image.notna() & (items.image != "")])
        extract_feature_maps(
            [str(name) for name in names],
            FLAGS.image_dir,
            FLAGS.output_dir,
            FLAGS.backbone,
            FLAGS.weights,
            FLAGS.image_size,
            FLAGS.layer,
            FLAGS.seed,
        )


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_string("items", None, "Catalogue, CSV or Parquet.", required=True)
    flags.DEFINE_string("image_dir", None, "Folder of the images.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder to write.", required=True)
    flags.DEFINE_enum(
        "backbone", "MobileNetV3Small", list(BACKBONES), "keras.applications model."
    )
    flags.DEFINE_string("weights", "imagenet", "imagenet, random, or a file's path.")
    flags.DEFINE_integer("image_size", 224, "Input size in pixels.", lower_bound=32)
    flags.DEFINE_string("layer", None, "Last layer to keep; default: the backbone's.")
    flags.DEFINE_integer("seed", 0, "Seed of random weights.")
    app.run(main)
