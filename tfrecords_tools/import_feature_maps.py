r"""Makes MAPS of image vectors, patch tokens or maps that another encoder has made.

    python -m tfrecords_tools.import_feature_maps --input=clip.parquet \
        --encoder=clip-vit-b32 --output_dir=MAPS

--input is a file or a folder of files, which may be larger than memory: Parquet with
the columns `image`, as in the catalogue, and `vector` or `map`; or NumPy's .npz with
the arrays `ids` and `maps`. An image has a vector [D], which becomes a map of one
position; patch tokens [P, D] of a transformer, in a square or with --height and
--width; or a map [h, w, c].

--encoder is a name for what made them. A run, an export and --extend take maps of that
name only. With --extend=OLD_MAPS the new store has all maps of an old one, and those of
the images that the old one lacks.
"""

from absl import flags

from hccm_tf.commands import run
from hccm_tf.data.feature_maps import MAP_DTYPES
from hccm_tf.preparation.feature_maps.import_maps import import_feature_maps

FLAGS = flags.FLAGS
NAMES = ("encoder", "extend", "dtype", "skip_tokens", "height", "width")


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string(
        "input", None, "The .parquet or .npz file, or a folder of them.", required=True
    )
    flags.DEFINE_string("output_dir", None, "The folder MAPS to write.", required=True)
    flags.DEFINE_string(
        "encoder",
        None,
        "A name of what made the arrays, such as clip-vit-b32. By default that of "
        "--extend.",
    )
    flags.DEFINE_string(
        "extend", None, "An old folder MAPS, whose feature maps are taken over."
    )
    flags.DEFINE_enum(
        "dtype",
        None,
        list(MAP_DTYPES),
        "The type of the maps on disk: float16 (the default), or int8, of half the "
        "size, with a scale for each channel of each map.",
    )
    flags.DEFINE_integer(
        "skip_tokens",
        0,
        "The number of the first tokens that are no patches: 1 for DINOv2's of the "
        "class, 5 with registers.",
        lower_bound=0,
    )
    for name, what in (("height", "rows"), ("width", "columns")):
        flags.DEFINE_integer(
            name,
            None,
            f"The number of {what} of patch tokens. By default they are a square.",
            lower_bound=1,
        )


def main(words):
    """Runs the command line."""
    del words
    import_feature_maps(
        FLAGS.input, FLAGS.output_dir, **{name: FLAGS[name].value for name in NAMES}
    )


if __name__ == "__main__":
    run(main, define_flags)
