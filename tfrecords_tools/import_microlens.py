"""Reads MicroLens-1M of the MM-CTR challenge (WWW 2025) into a shop's tables.

    python -m tfrecords_tools.import_microlens --help

`tfrecords_tools.importers.microlens`, of which this is a shorter name, says how.
"""

import runpy

if __name__ == "__main__":
    # Its description and its flags are what --help shows.
    module = "tfrecords_tools.importers.microlens"
    runpy.run_module(module, run_name="__main__", alter_sys=True)
