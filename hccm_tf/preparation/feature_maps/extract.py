"""Runs the fixed CNN over every image of a catalogue, once (HCCM, Eq. 6-7)."""

import dataclasses
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
from hccm_tf.data.feature_maps import IMAGES, FeatureMapStore
from hccm_tf.errors import InputError
from hccm_tf.files import is_remote
from hccm_tf.preparation.feature_maps.assembly import assemble
from hccm_tf.preparation.feature_maps.settings import (
    CnnOptions,
    cnn_settings,
    prepare,
)
from hccm_tf.preparation.feature_maps.shards import NAMES, Encoding, write_shard
from hccm_tf.preparation.images import MAX_PIXELS
from hccm_tf.preparation.steps import Step, run_steps
from hccm_tf.preparation.tables import read_table


def extract_feature_maps(
    images,
    image_dir,
    output_dir,
    max_pixels=MAX_PIXELS,
    extend=None,
    beam_args=(),
    **options,
):
    """Writes the feature-map store of `hccm_tf.data.feature_maps`.

    Args:
        images: distinct image names, paths relative to `image_dir` or URLs.
        image_dir: folder of the images; `None` if all of them are URLs.
        output_dir: folder to write.
        max_pixels: an image with more pixels is skipped.
        extend: folder of an old store whose maps the new one takes over, or `None`.
        beam_args: Apache Beam's options, list of str.
        **options: fields of `hccm_tf.preparation.feature_maps.settings.CnnOptions`.

    Raises:
        InputError: if a setting is wrong or no image is readable.
    """
    _check_image_dir(images, image_dir)
    old = None if extend is None else FeatureMapStore.open(extend)
    cnn = cnn_settings(CnnOptions(**options), old)
    settings = {
        **cnn,
        "images_sha256": hashlib.sha256("\0".join(images).encode()).hexdigest(),
        "image_dir": image_dir and str(pathlib.Path(image_dir).resolve()),
        "max_pixels": max_pixels,
        "extend": old and hashlib.sha256(json.dumps(old.metadata).encode()).hexdigest(),
    }
    known, images = _new_images(images, old)
    names = np.concatenate([known, images])
    keys, order = ids.sorted_unique_keys(names, "image")
    with new_folder(output_dir, resume=True) as folder:
        work = folder / "work"
        made = prepare(folder, work, settings, old, images)
        _encode(work, settings | made, beam_args)
        metadata = {**cnn, "images_sha256": settings["images_sha256"], **made}
        count, skipped = assemble(folder, work, old, names, keys, order, metadata)
    shutil.rmtree(pathlib.Path(output_dir) / "work")
    shape = tuple(metadata["shape"])
    print(f"{count} feature maps {shape}, {skipped} images skipped -> {output_dir}")


def _check_image_dir(images, image_dir):
    local = next((image for image in images if not is_remote(image)), None)
    if local is not None and not (image_dir and pathlib.Path(image_dir).is_dir()):
        raise InputError(
            f"image_dir: the folder of images such as {local}. Received: {image_dir}"
        )


def _new_images(images, old):
    """`(known, new)`: names of an old store's maps, and what it lacks of `images`."""
    images = np.asarray(images, object)
    if old is None:
        return np.zeros(0, object), images
    known = pq.read_table(old.path / IMAGES)["image"].to_numpy()
    return known, images[~pc.is_in(pa.array(images), pa.array(known)).to_numpy(False)]


def _encode(work, settings, beam_args):
    """Writes the shards of a run, each from one row group of names."""
    fields = dataclasses.fields(Encoding)
    told = {"work": work.resolve(), **settings}
    encoding = Encoding(**{field.name: told[field.name] for field in fields})
    count = pq.read_metadata(work / NAMES).num_row_groups
    if count:
        # One process: TensorFlow uses all cores.
        step = Step(functools.partial(write_shard, encoding), count)
        run_steps([step], work, beam_args, processes=1)


def read_images(items):
    """The distinct image names of a catalogue, in its order; list of str.

    Args:
        items: path of the catalogue, CSV or Parquet.
    """
    table = read_table(items, ["item_id", "image"], strings=["image"])
    images = table["image"].unique().drop_null()
    return images.filter(pc.not_equal(images, "")).to_pylist()
