"""Makes a SYNTHETIC shop: JPEG photos, a catalogue, a click log and its truth.

    python -m tfrecords_tools.make_demo --output_dir=SHOP

`tfrecords_tools.demo.shop` says what its users like, and how it shows.
"""

import pathlib

from absl import flags

from hccm_tf.commands import run
from tfrecords_tools.demo.shop import CATEGORIES, make_demo
from tfrecords_tools.next_steps import say_preparation

FLAGS = flags.FLAGS


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string("output_dir", None, "The folder SHOP to write.", required=True)
    flags.DEFINE_integer(
        "items", 2_000, "The number of items.", lower_bound=len(CATEGORIES)
    )
    flags.DEFINE_integer("users", 500, "The number of users.", lower_bound=1)
    flags.DEFINE_integer(
        "impressions", 120_000, "The number of impressions.", lower_bound=1
    )
    flags.DEFINE_integer(
        "request_size",
        1,
        "The number of different items that a user is shown at a time.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "seed", 0, "The seed of everything that is drawn.", lower_bound=0
    )


def main(words):
    """Runs the command line."""
    del words
    make_demo(
        FLAGS.output_dir,
        FLAGS.items,
        FLAGS.users,
        FLAGS.impressions,
        FLAGS.seed,
        FLAGS.request_size,
    )
    say_preparation(
        FLAGS.output_dir,
        f"--image_dir={pathlib.Path(FLAGS.output_dir, 'images')}",
        "--flagfile=demo_feature_maps",
        ending="csv",
    )


if __name__ == "__main__":
    run(main, define_flags)
