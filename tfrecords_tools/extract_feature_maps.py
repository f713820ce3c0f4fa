"""Runs the fixed CNN over every image of a catalogue, once (HCCM, Eq. 6-7).

    python -m tfrecords_tools.extract_feature_maps --items=SHOP/items.csv \
        --image_dir=SHOP/images --output_dir=MAPS

The maps appear under MAPS when all of them are there. An interrupted run leaves
MAPS.incomplete, and the same command goes on with the shards that are not done. A
missing or corrupt image is named in MAPS/skipped.csv and left out of the store: its
items count as items without an image.

With --extend=OLD_MAPS the new store has all maps of an old one, and those of the images
that the old one lacks. Old shards are linked, not copied, where the disk can do that.

What stands after `--` are options of Apache Beam, such as `--runner=FlinkRunner`; the
workers of a cluster must see the folders under the same names.
"""

import functools
import hashlib
import json
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from absl import app, flags

from hccm_tf import ids
from hccm_tf.atomic import new_folder
from hccm_tf.backbones import BACKBONES
from hccm_tf.data.feature_maps import DTYPES, FeatureMapStore
from hccm_tf.errors import InputError, report_input_errors
from hccm_tf.files import is_remote
from tfrecords_tools.feature_map_assembly import assemble
from tfrecords_tools.feature_map_settings import DEFAULTS, cnn_settings, prepare
from tfrecords_tools.feature_map_shards import NAMES, Encoding, write_shard
from tfrecords_tools.images import MAX_PIXELS
from tfrecords_tools.steps import Step, run_steps
from tfrecords_tools.tables import read_table


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


def main(argv):
    """Runs the command line."""
    with report_input_errors():
        table = read_table(FLAGS.items, ["item_id", "image"], strings=["image"])
        images = table["image"].unique().drop_null()
        extract_feature_maps(
            images.filter(pc.not_equal(images, "")).to_pylist(),
            FLAGS.image_dir,
            FLAGS.output_dir,
            **{name: FLAGS[name].value for name in [*DEFAULTS, "max_pixels", "extend"]},
            beam_args=argv[1:],
        )


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_string("items", None, "Catalogue, CSV or Parquet.", required=True)
    flags.DEFINE_string("image_dir", None, "Folder of the images that are no URLs.")
    flags.DEFINE_string("output_dir", None, "Folder to write.", required=True)
    flags.DEFINE_enum(
        "backbone",
        None,
        list(BACKBONES),
        f"keras.applications model; default: {DEFAULTS['backbone']}.",
    )
    flags.DEFINE_string(
        "weights", None, "imagenet (the default), random, or a file's path."
    )
    flags.DEFINE_integer(
        "image_size",
        None,
        f"Input size in pixels; default: {DEFAULTS['image_size']}.",
        lower_bound=32,
    )
    flags.DEFINE_string("layer", None, "Last layer to keep; default: the backbone's.")
    flags.DEFINE_enum(
        "dtype", None, list(DTYPES), "float16 (the default), or int8: half the size."
    )
    flags.DEFINE_integer("seed", None, "Seed of random weights; default: 0.")
    flags.DEFINE_integer(
        "max_pixels", MAX_PIXELS, "Larger images are skipped.", lower_bound=1
    )
    flags.DEFINE_string("extend", None, "Store whose feature maps are taken over.")
    app.run(main)
