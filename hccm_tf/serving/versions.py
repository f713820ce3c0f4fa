"""The versions of a model: numbered folders, as TensorFlow Serving takes them."""

import pathlib
import re

# Not "²", which `isdigit` takes, nor "01", which would be version 1; of 64 bits.
NUMBER = re.compile("0|[1-9][0-9]{,17}")


def versions(export_dir):
    """Numbers that folders or files below `export_dir` are named by, ascending.

    Whether they are whole versions says `hccm_tf.serving.whole.missing`; the numbers of
    others are taken, too.
    """
    names = [path.name for path in pathlib.Path(export_dir).glob("*")]
    return sorted(int(name) for name in names if NUMBER.fullmatch(name))


def next_version(export_dir):
    """Path of the next version below `export_dir`."""
    number = max(versions(export_dir), default=0) + 1
    return pathlib.Path(export_dir) / str(number)
