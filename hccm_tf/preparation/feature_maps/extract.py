"""Runs the fixed CNN over every image of a catalogue, once (HCCM, Eq. 6-7)."""

import functools
import hashlib
import json
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hccm_tf.atomic import new_folder
from hccm_tf.data import ids
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.errors import InputError
from hccm_tf.files import is_remote
from hccm_tf.preparation.feature_maps.assembly import assemble
from hccm_tf.preparation.feature_maps.settings import cnn_settings, prepare
from hccm_tf.preparation.feature_maps.shards import NAMES, Encoding, write_shard
from hccm_tf.preparation.images import MAX_PIXELS
from hccm_tf.preparation.steps import Step, run_steps
from hccm_tf.preparation.tables import read_table


def _check_image_dir(images, image_dir):
    local = next((image for image in images if not is_remote(image)), None)
    if local is not None and not (image_dir and pathlib.Path(image_dir).is_dir()):
        raise InputError(
            f"--image_dir: the folder of images such as {local}. Received: {image_dir}"
        )


def extract_feature_maps(
    images,
    image_dir,
    output_dir,
    backbone=None,
    weights=None,
    image_size=None,
    layer=None,
    dtype=None,
    seed=None,
    max_pixels=MAX_PIXELS,
    extend=None,
    beam_args=(),
):
    """Writes the feature-map store of `hccm_tf.data.feature_maps`.

    What is `None` of the CNN's settings is that of `DEFAULTS`, or of the old store.

    Args:
        images: distinct image names, paths relative to `image_dir` or URLs.
        image_dir: folder of the images; `None` if all of them are URLs.
        output_dir: folder to write.
        backbone: key of `BACKBONES`.
        weights: `"imagenet"`, `"random"` or a path.
        image_size: height and width in pixels of the CNN's input.
        layer: name of the backbone's last layer to keep.
        dtype: `"float16"`, or `"int8"` with a scale for each channel of each map.
        seed: of random weights.
        max_pixels: an image with more pixels is skipped.
        extend: folder of an old store whose maps the new one takes over, or `None`.
        beam_args: Apache Beam's options, list of str.

    Raises:
        InputError: if a setting is wrong or no image is readable.
    """
    _check_image_dir(images, image_dir)
    old = None if extend is None else FeatureMapStore.open(extend)
    asked = {
        "backbone": backbone,
        "weights": weights,
        "image_size": image_size,
        "layer": layer,
        "dtype": dtype,
        "seed": seed,
    }
    cnn = cnn_settings(asked, old)
    digest = hashlib.sha256("\0".join(images).encode()).hexdigest()
    images = np.asarray(images, object)
    known = np.zeros(0, object)
    if old is not None:
        known = pq.read_table(old.path / "images.parquet")["image"].to_numpy()
        images = images[~pc.is_in(pa.array(images), pa.array(known)).to_numpy(False)]
    names = np.concatenate([known, images])
    keys, order = ids.sorted_unique_keys(names, "image")
    settings = {
        **cnn,
        "images_sha256": digest,
        "image_dir": image_dir and str(pathlib.Path(image_dir).resolve()),
        "max_pixels": max_pixels,
        "extend": old and hashlib.sha256(json.dumps(old.metadata).encode()).hexdigest(),
    }
    with new_folder(output_dir, resume=True) as folder:
        work = folder / "work"
        weights_sha256, shape = prepare(folder, work, settings, old, images)
        encoding = Encoding(
            work.resolve(),
            settings["image_dir"],
            max_pixels,
            cnn["backbone"],
            cnn["image_size"],
            cnn["layer"],
            cnn["dtype"],
            weights_sha256,
        )
        parts = pq.read_metadata(work / NAMES).num_row_groups
        if parts:
            # One process: TensorFlow uses all cores.
            step = Step(functools.partial(write_shard, encoding), parts)
            run_steps([step], work, beam_args, processes=1)
        metadata = {
            **cnn,
            "images_sha256": digest,
            "weights_sha256": weights_sha256,
            "shape": shape,
        }
        count, skipped = assemble(folder, work, old, names, keys, order, metadata)
    shutil.rmtree(pathlib.Path(output_dir) / "work")
    print(
        f"{count} feature maps {tuple(shape)}, {skipped} images skipped -> {output_dir}"
    )


def read_images(items):
    """The distinct image names of a catalogue, in its order; list of str.

    Args:
        items: path of the catalogue, CSV or Parquet.
    """
    table = read_table(items, ["item_id", "image"], strings=["image"])
    images = table["image"].unique().drop_null()
    return images.filter(pc.not_equal(images, "")).to_pylist()
