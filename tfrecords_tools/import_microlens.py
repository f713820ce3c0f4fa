"""Reads MicroLens-1M of the MM-CTR challenge (WWW 2025) into a shop's tables.

    python -m tfrecords_tools.import_microlens --help

is `python -m tfrecords_tools.importers.microlens`.
"""

from hccm_tf.commands import run
from tfrecords_tools.importers.microlens import define_flags, import_microlens, main

__all__ = ["import_microlens"]

if __name__ == "__main__":
    run(main, define_flags)
