r"""Trains, evaluates and exports a CTR model, or compares several.

    python train_main.py --flagfile=configs/hccm.flags --data_dir=DATA \
        --feature_maps=MAPS --run_dir=RUN --export_dir=saved_models/hccm

trains a model. RUN gets its metrics, the predictions of the test split, the history of
its epochs, TensorBoard logs, checkpoints for --resume, the trained model, the flagfile
run.flags that makes the same run again and, where they are asked for, a first request
for the export, the page of --explain and the items of --projector.

    python train_main.py --from_run=RUN --export_dir=saved_models/hccm
    python train_main.py --from_run=RUN --explain=20 --image_dir=photos
    python train_main.py --from_run=RUN --projector=2000 --image_dir=photos
    python train_main.py --from_run=RUN --data_dir=OTHER_DATA --run_dir=OTHER_RUN

take a run as it is: to export it, to see what it looked at, to lay out its items in
TensorBoard, to test it on other data.

    python train_main.py --flagfile=configs/hccm.flags --data_dir=DATA \
        --feature_maps=MAPS --run_dir=COMPARISON \
        --compare="din,din_fixed_cnn,hcm,hccm,hccm --shuffle_images" --seeds=5

trains models over seeds and says what their differences are worth.
"""

import os
import sys

from absl import app, flags

from hccm_tf.backend import require_tensorflow
from hccm_tf.commands import check_no_words, find_flagfiles, quiet_libraries
from hccm_tf.errors import report_input_errors

with report_input_errors():
    # Before Keras is imported, which fails if that backend is not there.
    require_tensorflow(os.environ.get("KERAS_BACKEND"))

# ruff: noqa: E402
from hccm_tf.comparison.compare import compare
from hccm_tf.comparison.runs import subprocess_trainer
from hccm_tf.flags.groups import ComparisonOptions, ResultOptions
from hccm_tf.flags.help import help_text
from hccm_tf.flags.read import (
    options_of,
    own_models,
    parse,
    read_configuration_flags,
    typed,
)
from hccm_tf.models import CHOICES
from hccm_tf.training_run import run

FLAGS = flags.FLAGS


def parse_flags(argv):
    """Parses the command line; `--help` and errors end the program."""
    argv = find_flagfiles(argv)
    with report_input_errors(FLAGS):
        if {"--help", "-h"} & set(argv[1:]):
            models = [*CHOICES.values(), *own_models(argv[1:])]
            print(help_text(__doc__, models), end="")
            sys.exit(0)
        return parse(FLAGS, argv)


def main(argv):
    """Runs the command line."""
    typed_names = typed(FLAGS, sys.argv[1:])
    with report_input_errors(FLAGS):
        check_no_words(argv[1:])
        if options_of(ComparisonOptions, FLAGS).compare is not None:
            compare(FLAGS, typed_names, subprocess_trainer(sys.argv[0]))
            return
        configuration = read_configuration_flags(FLAGS, typed_names)
        results = options_of(ResultOptions, FLAGS)
    run(configuration, results, FLAGS.from_run)


if __name__ == "__main__":
    quiet_libraries()
    app.run(main, flags_parser=parse_flags)
