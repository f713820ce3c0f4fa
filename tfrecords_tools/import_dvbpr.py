"""Reads a fashion dataset of DVBPR (Kang et al., ICDM 2017) into a shop's tables.

    python -m tfrecords_tools.import_dvbpr --help

`tfrecords_tools.importers.dvbpr`, of which this is a shorter name, says how.
"""

import runpy

if __name__ == "__main__":
    # Its description and its flags are what --help shows.
    module = "tfrecords_tools.importers.dvbpr"
    runpy.run_module(module, run_name="__main__", alter_sys=True)
