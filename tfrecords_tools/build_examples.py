r"""Joins a click log with its catalogue into TFRecords of `tf.train.Example`.

    python -m tfrecords_tools.build_examples --items=SHOP/items.csv \
        --impressions=SHOP/impressions.csv --output_dir=DATA

DATA holds `impressions-<split>.tfrecord-00000-of-00004`, the feature schema
(`schema.json`, which can be edited and passed back with --schema), the vocabularies of
the training split, the images of the catalogue (`catalogue.parquet`), what was written
and left out (`summary.json`), and the two files with which
`tensorflow_datasets.builder_from_directory(DATA)` opens it. A user's requests are in
the shards of one number.

A record is a request: what a user was shown at one moment, with user, context and
history once and a list of candidates. Impressions of one user and `timestamp` are one
request or, with a column `request_id`, those of one id; a log with neither has requests
of one impression. The history ends before the request's first second, which also
decides its split. Columns that differ within a request belong to its candidates. A
column `weight` weighs impressions in loss and metrics; neither it nor `request_id` is a
feature. Long requests are cut. Times are seconds since 1970, or dates; fractions of a
second order the clicks in it.

Text and integers are categories, also integers that gaps made floats and, in CSV,
digits with leading zeros, which stay text; other numbers are numbers; dates and lists
are left out. --numeric and --categorical say otherwise, and a table says what was made
of each column, and why. Histories hold the items' categories, --history_columns says
which.

The log is read in pieces and may be larger than memory; the catalogue, and a vocabulary
in each worker, are held in memory. Without a `split` column the newest 10% of the
impressions are `test` and the 10% before them `validation`. Rows of split `history`
feed the histories and are not written. A log with a list column `history_item_id`
(oldest first) brings its histories; with `split` it needs no `timestamp`.

The work is done in processes on the cores of this machine. What stands after `--` is
for Apache Beam on a cluster, whose workers must see the files and DATA's folder:

    python -m tfrecords_tools.build_examples --items=... -- --runner=FlinkRunner
"""

from absl import flags

from hccm_tf.commands import run, say_next
from hccm_tf.data.schema import read_schema
from hccm_tf.preparation.examples.build import build_examples

FLAGS = flags.FLAGS


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string(
        "items", None, "The catalogue: a CSV or Parquet file or folder.", required=True
    )
    flags.DEFINE_string(
        "impressions", None, "The log: a CSV or Parquet file or folder.", required=True
    )
    flags.DEFINE_string("output_dir", None, "The folder DATA to write.", required=True)
    flags.DEFINE_integer(
        "max_history",
        None,
        "The number of newest clicks in a history. By default the schema's, or 100.",
    )
    flags.DEFINE_string(
        "schema",
        None,
        "The schema.json to use, which may be edited. By default the schema is "
        "inferred from the columns.",
    )
    flags.DEFINE_integer(
        "seed",
        0,
        "The seed of the training requests' order and of the sample of negatives.",
        lower_bound=0,
    )
    flags.DEFINE_float(
        "negative_keep_rate",
        None,
        "The share of the training split's negatives to keep. By default the "
        "schema's, or all.",
    )
    flags.DEFINE_integer(
        "min_count",
        1,
        "The number of occurrences in the training split below which a value is "
        "unknown.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "max_vocabulary",
        10_000_000,
        "The number of values above which a feature is hashed into as many buckets.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "max_bad_rows",
        0,
        "The number of bad rows to skip before one is an error.",
        lower_bound=0,
    )
    flags.DEFINE_float(
        "max_unknown_share",
        0.5,
        "The share of the impressions whose items the catalogue may lack.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_list(
        "numeric", [], "The columns that are numbers, although the rule says otherwise."
    )
    flags.DEFINE_list(
        "categorical",
        [],
        "The columns that are categories, although the rule says otherwise.",
    )
    flags.DEFINE_list(
        "history_columns",
        None,
        "The columns of the items that histories hold beside item_id and category. By "
        "default all that are categories, but for those, such as titles, which nearly "
        "every item has for itself.",
    )
    flags.DEFINE_integer(
        "processes",
        None,
        "The number of worker processes. By default one a core, and none for a small "
        "log.",
        lower_bound=1,
    )


def main(words):
    """Runs the command line."""
    histories = FLAGS.history_columns
    build_examples(
        FLAGS.items,
        FLAGS.impressions,
        FLAGS.output_dir,
        FLAGS.max_history,
        read_schema(FLAGS.schema) if FLAGS.schema else None,
        FLAGS.seed,
        beam_args=words,
        negative_keep_rate=FLAGS.negative_keep_rate,
        min_count=FLAGS.min_count,
        max_vocabulary=FLAGS.max_vocabulary,
        max_bad_rows=FLAGS.max_bad_rows,
        max_unknown_share=FLAGS.max_unknown_share,
        numeric=tuple(FLAGS.numeric),
        categorical=tuple(FLAGS.categorical),
        history_columns=None if histories is None else tuple(histories),
        processes=FLAGS.processes,
    )
    data = f"--data_dir={FLAGS.output_dir}"
    say_next(
        ["hccm-validate", data, "--feature_maps=MAPS"],
        [
            *("hccm-train", "--flagfile=hccm", data, "--feature_maps=MAPS"),
            *("--run_dir=RUN", "--export_dir=saved_models/hccm"),
        ],
    )


if __name__ == "__main__":
    run(main, define_flags, words="--")
