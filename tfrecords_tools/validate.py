"""Checks a data folder, and the feature maps that go with it, and says what is in them.

    python -m tfrecords_tools.validate --data_dir=DATA --feature_maps=MAPS

Everything is read once, the shards of one number at a time: those of all splits hold
the same users, so that each history can be compared with its user's clicks. The report
ends with `valid`; otherwise the errors stand one a line on stderr, and the exit code
is 1.
"""

import sys

from absl import flags

from hccm_tf.commands import run
from hccm_tf.preparation.validation.validate import validate

FLAGS = flags.FLAGS


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string(
        "data_dir", None, "The folder DATA of build_examples.", required=True
    )
    flags.DEFINE_string(
        "feature_maps",
        None,
        "The folder MAPS of extract_feature_maps. By default none is checked.",
    )


def main(words):
    """Runs the command line."""
    del words
    lines, errors = validate(FLAGS.data_dir, FLAGS.feature_maps)
    print("\n".join(lines), flush=True)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        sys.exit(1)
    print("valid")


if __name__ == "__main__":
    run(main, define_flags)
