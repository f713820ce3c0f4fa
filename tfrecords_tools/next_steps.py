"""What to type when a shop's two tables are there."""

import pathlib

from hccm_tf.commands import say_next


def say_preparation(shop, *image_flags, ending="parquet"):
    """Prints the commands that make MAPS and DATA.

    Args:
        shop: folder of `items` and `impressions`.
        *image_flags: further flags of `extract_feature_maps`.
        ending: of the tables' names.
    """
    items, log = (
        f"--{name}={pathlib.Path(shop, f'{name}.{ending}')}"
        for name in ("items", "impressions")
    )
    extract = "hccm-extract-feature-maps", items, *image_flags
    say_next(
        [*extract, "--output_dir=MAPS"],
        ["hccm-build-examples", items, log, "--output_dir=DATA"],
    )
