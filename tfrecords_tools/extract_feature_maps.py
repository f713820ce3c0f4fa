r"""Runs the fixed CNN over every image of a catalogue, once (HCCM, Eq. 6-7).

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

from absl import flags

from hccm_tf.commands import run, say_next
from hccm_tf.data.feature_maps import MAP_DTYPES
from hccm_tf.images.places import ALLOWED
from hccm_tf.images.read import MAX_PIXELS
from hccm_tf.preparation.feature_maps.extract import extract_feature_maps, read_images
from hccm_tf.preparation.feature_maps.settings import DEFAULTS

FLAGS = flags.FLAGS
OTHERS = ("max_pixels", "extend")


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string(
        "items", None, "The catalogue: a CSV or Parquet file or folder.", required=True
    )
    flags.DEFINE_string("image_dir", None, "The folder of the images that are no URLs.")
    flags.DEFINE_string("output_dir", None, "The folder MAPS to write.", required=True)
    flags.DEFINE_string(
        "backbone",
        None,
        "The CNN of keras.applications, by name, such as EfficientNetV2B0 or "
        "ConvNeXtTiny, or the path of a .keras file: a functional model of images, RGB "
        f"in 0..255. By default that of --extend, or {DEFAULTS['backbone']}.",
    )
    flags.DEFINE_string(
        "weights",
        None,
        "Its weights: imagenet (the default), random, or the path of a file. A .keras "
        "file has its own.",
    )
    flags.DEFINE_integer(
        "image_size",
        None,
        "The height and width of its input in pixels. By default that of --extend or "
        f"of the .keras file, or {DEFAULTS['image_size']}.",
        lower_bound=32,
    )
    flags.DEFINE_string(
        "layer",
        None,
        "The last layer to keep. By default the backbone's last residual addition, or "
        "its output if something goes past that; the output of a .keras file.",
    )
    flags.DEFINE_enum(
        "dtype",
        None,
        list(MAP_DTYPES),
        "The type of the maps on disk: float16 (the default), or int8, of half the "
        "size.",
    )
    flags.DEFINE_integer(
        "seed", None, "The seed of random weights. By default 0.", lower_bound=0
    )
    flags.DEFINE_integer(
        "max_pixels",
        MAX_PIXELS,
        "The number of pixels above which an image is skipped.",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "extend", None, "An old folder MAPS, whose feature maps are taken over."
    )
    for name, help in ALLOWED.items():
        flags.DEFINE_bool(name, False, help)


def main(words):
    """Runs the command line."""
    extract_feature_maps(
        read_images(FLAGS.items),
        FLAGS.image_dir,
        FLAGS.output_dir,
        **{name: FLAGS[name].value for name in [*DEFAULTS, *OTHERS, *ALLOWED]},
        beam_args=words,
    )
    say_next(
        [
            *("hccm-build-examples", f"--items={FLAGS.items}"),
            *("--impressions=LOG", "--output_dir=DATA"),
        ]
    )


if __name__ == "__main__":
    run(main, define_flags, words="--")
