r"""Gives items the semantic ids of their images: codes that alike images share.

    python -m tfrecords_tools.semantic_ids --feature_maps=MAPS --items=items.csv \
        --output=items_with_ids.csv

Residual k-means of the images' vectors (QARM, arXiv 2411.11739): `semantic_1` is the
nearest of 256 centroids, `semantic_2` and `semantic_3` those of what is left. In
--output, of the kind of --items, they are integers, which `build_examples` takes as
categories like any other attribute; an item without a feature map has none.

The centroids are beside it, items_with_ids.centroids.npz. With --centroids they are
taken for a later catalogue, whose old photos keep their codes: a model knows those that
it was trained with.
"""

from absl import flags

from hccm_tf.commands import run
from hccm_tf.preparation.semantic_ids import NUM_CODES, write_semantic_ids

FLAGS = flags.FLAGS


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string(
        "feature_maps", None, "The folder MAPS of the images.", required=True
    )
    flags.DEFINE_string(
        "items", None, "The catalogue: a CSV or Parquet file or folder.", required=True
    )
    flags.DEFINE_string(
        "output", None, "The file to write, of the same kind.", required=True
    )
    flags.DEFINE_string(
        "centroids", None, "The centroids to take. By default they are fitted to MAPS."
    )
    flags.DEFINE_integer(
        "num_codes", NUM_CODES, "The number of codes of a level.", lower_bound=2
    )
    flags.DEFINE_integer("seed", 0, "The seed of the centroids.", lower_bound=0)


def main(words):
    """Runs the command line."""
    del words
    names = ("feature_maps", "items", "output", "centroids", "num_codes", "seed")
    write_semantic_ids(**{name: FLAGS[name].value for name in names})


if __name__ == "__main__":
    run(main, define_flags)
