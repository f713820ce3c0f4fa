"""Reads Amazon Reviews 2023 (McAuley Lab) into a shop's tables.

    python -m tfrecords_tools.import_amazon_reviews --help

is `python -m tfrecords_tools.importers.amazon_reviews`.
"""

from hccm_tf.commands import run
from tfrecords_tools.importers.amazon_reviews import (
    define_flags,
    import_amazon_reviews,
    main,
)

__all__ = ["import_amazon_reviews"]

if __name__ == "__main__":
    run(main, define_flags)
