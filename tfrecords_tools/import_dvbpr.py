"""Reads a fashion dataset of DVBPR (Kang et al., ICDM 2017) into a shop's tables.

    python -m tfrecords_tools.import_dvbpr --help

is `python -m tfrecords_tools.importers.dvbpr`.
"""

from hccm_tf.commands import run
from tfrecords_tools.importers.dvbpr import define_flags, import_dvbpr, main

__all__ = ["import_dvbpr"]

if __name__ == "__main__":
    run(main, define_flags)
