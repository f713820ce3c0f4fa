r"""Writes the next version of an export with new items and images, without training.

    python -m tfrecords_tools.refresh_export --export_dir=saved_models/hccm \
        --items=SHOP/items.csv --feature_maps=MAPS

A model that takes pixels, `cscnn`, has --image_dir in the place of --feature_maps; one
without images has neither.

MAPS holds the feature maps of the images that are new, and may hold all of them, as
`extract_feature_maps --extend` makes it. The version appears when it is whole, and the
server loads it as it loads an export. Columns of items are as ITEMS has them now. Rows
of items and images that ITEMS no longer has are kept, because users' histories still
show them; --remove_missing drops them.
"""

from absl import flags
from etils import epy

from hccm_tf.commands import run, say_next
from hccm_tf.images.places import ALLOWED

with epy.lazy_imports():
    from hccm_tf.serving import refresh

FLAGS = flags.FLAGS


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string(
        "export_dir",
        None,
        "The folder of SavedModel versions, of which the newest is refreshed.",
        required=True,
    )
    flags.DEFINE_string(
        "items", None, "The catalogue: a CSV or Parquet file or folder.", required=True
    )
    flags.DEFINE_string(
        "feature_maps",
        None,
        "The folder MAPS of extract_feature_maps, for a model that takes maps.",
    )
    flags.DEFINE_string(
        "image_dir", None, "The folder of the images, for a model that takes pixels."
    )
    flags.DEFINE_bool(
        "remove_missing",
        False,
        "Whether to drop the rows of items and images that are not in the catalogue.",
    )
    for name, help in ALLOWED.items():
        flags.DEFINE_bool(name, False, help)


def main(words):
    """Runs the command line."""
    del words
    version = refresh.refresh(
        FLAGS.export_dir,
        FLAGS.items,
        FLAGS.feature_maps,
        FLAGS.remove_missing,
        FLAGS.image_dir,
        **{name: FLAGS[name].value for name in ALLOWED},
    )
    if version is not None:
        say_next(["hccm-server-config", f"--models_dir={version.parent.parent}"])


if __name__ == "__main__":
    run(main, define_flags)
