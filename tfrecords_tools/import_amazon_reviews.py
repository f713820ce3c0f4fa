"""Reads Amazon Reviews 2023 (McAuley Lab) into a shop's tables.

    python -m tfrecords_tools.import_amazon_reviews --help

`tfrecords_tools.importers.amazon_reviews`, of which this is a shorter name, says how.
"""

import runpy

if __name__ == "__main__":
    # Its description and its flags are what --help shows.
    module = "tfrecords_tools.importers.amazon_reviews"
    runpy.run_module(module, run_name="__main__", alter_sys=True)
