"""Prints a few requests of a data folder as people read them.

    python -m tfrecords_tools.inspect_examples --data_dir=DATA --image_dir=SHOP/images

A request is what one user was shown at one moment: user and context stand there once,
then its candidates, with their labels, and the history that they share.
"""

from absl import flags

from hccm_tf.commands import run
from hccm_tf.preparation.examples.describe import describe

FLAGS = flags.FLAGS


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string(
        "data_dir", None, "The folder DATA of build_examples.", required=True
    )
    flags.DEFINE_string("split", "train", "The split: train, validation or test.")
    flags.DEFINE_integer("count", 3, "The number of requests to print.", lower_bound=1)
    flags.DEFINE_string("image_dir", "", "The folder of the images.")


def main(words):
    """Runs the command line."""
    del words
    lines = describe(FLAGS.data_dir, FLAGS.split, FLAGS.count, FLAGS.image_dir)
    print("\n".join(lines))


if __name__ == "__main__":
    run(main, define_flags)
