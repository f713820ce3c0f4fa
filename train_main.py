"""Trains, evaluates and exports one model: parses flags and calls `hccm_tf`.

python train_main.py --flagfile=configs/hccm.flags --data_dir=DATA \
        --feature_maps=MAPS --run_dir=RUN --export_dir=saved_models/hccm

RUN gets `metrics.json`, `test_predictions.parquet`, `history.csv`, TensorBoard logs,
checkpoints for --resume, and `model.keras`, `schema/` and `feature_maps.json`, with
which --warm_start_from=RUN begins; with an export `request.json`, a first request for
it, and with --explain `explanation.html`. With --compare it gets the runs of several
models and seeds, `comparison.md`, `comparison.json` and plots:

python train_main.py --flagfile=configs/hccm.flags --data_dir=DATA \
        --feature_maps=MAPS --run_dir=COMPARISON \
        --compare="din,din_fixed_cnn,hcm,hccm,hccm --shuffle_images" --seeds=5
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import traceback

import tensorflow as tf
from absl import app, flags

from hccm_tf import CTREstimator
from hccm_tf.comparison.compare import compare
from hccm_tf.comparison.runs import subprocess_trainer
from hccm_tf.errors import (
    LOST_PROCESS,
    PREEMPTED,
    InputError,
    report_input_errors,
)
from hccm_tf.estimator import write_metrics
from hccm_tf.models import IMAGE_MODELS, MODELS
from hccm_tf.models.backbones import BACKBONES
from hccm_tf.models.image_encoder import sides
from hccm_tf.models.options import (
    CNN_ATTENTIONS,
    IMAGE_ATTENTIONS,
    IMAGE_SIDES,
    PROJECTIONS,
    SIMILARITIES,
    ModelOptions,
)
from hccm_tf.serving.representations import DTYPES
from hccm_tf.serving.request import Impressions, impressions_request, to_json
from hccm_tf.training.preemption import Preempted
from hccm_tf.training.strategies import (
    CLUSTER_STRATEGIES,
    STRATEGIES,
    is_chief,
    make_strategy,
)
from hccm_tf.training.warm_start import WARM_STARTS

FLAGS = flags.FLAGS

flags.DEFINE_string("data_dir", None, "Of build_examples.", required=True)
flags.DEFINE_string("feature_maps", None, "Of extract_feature_maps.")
flags.DEFINE_string("image_dir", None, "Folder of the images, for cscnn and --explain.")
flags.DEFINE_enum("model", "hccm", MODELS, "Model.")
flags.DEFINE_string("run_dir", None, "Folder for metrics and logs.", required=True)
flags.DEFINE_string("export_dir", None, "Folder of SavedModel versions.")
flags.DEFINE_enum("representation_dtype", "float32", DTYPES, "Of the export's table.")
flags.DEFINE_integer("seed", 0, "Seed; the same gives the same metrics.")
flags.DEFINE_integer("epochs", 5, "Passes at most; 0: no training.", lower_bound=0)
flags.DEFINE_integer("patience", 1, "Epochs without gain to stop.", lower_bound=0)
flags.DEFINE_integer("batch_size", 512, "Impressions in a batch.", lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-3, "Of LazyAdam.", lower_bound=0)
flags.DEFINE_integer("max_history", None, "Newest clicks to use.", lower_bound=1)
flags.DEFINE_bool("shuffle_images", False, "Control: deal photos to other items.")
flags.DEFINE_bool(
    "shuffle_categories", False, "Control: tell the CNN the category of another item."
)
flags.DEFINE_integer("image_size", 64, "Of cscnn, in pixels.", lower_bound=32)
flags.DEFINE_string(
    "cnn_weights", "imagenet", "Of cscnn: imagenet, random, or a file's path."
)
flags.DEFINE_integer(
    "pretrain_epochs", 0, "Passes in which cscnn learns categories.", lower_bound=0
)
flags.DEFINE_bool("group_by_item", False, "An item's impressions in one batch.")
flags.DEFINE_bool("resume", False, "Go on from the last checkpoint in run_dir.")
flags.DEFINE_enum(
    "strategy", "one_device", STRATEGIES, "Of TensorFlow; cluster from TF_CONFIG."
)
flags.DEFINE_string("warm_start_from", None, "Run whose weights to begin with.")
flags.DEFINE_enum("warm_start", "all", WARM_STARTS, "Which of its weights.")
flags.DEFINE_integer("explain", 0, "Test impressions to explain.", lower_bound=0)

# A comparison: each arm is a model, with further flags; their order is the claim.
flags.DEFINE_list("compare", None, "Arms: MODEL, or MODEL --flag=..., with commas.")
flags.DEFINE_integer("seeds", 5, "Runs of an arm, from --seed on.", lower_bound=1)
flags.DEFINE_integer("search_trials", 4, "Settings tried on validation.", lower_bound=0)
flags.DEFINE_string("oracle", None, "oracle.json of make_demo, for the comparison.")

# Of ModelOptions, by the same names.
flags.DEFINE_integer("embedding_dim", 8, "Width of an embedding.", lower_bound=1)
flags.DEFINE_list("hidden_units", "400,160,80", "Widths of the final MLP.")
flags.DEFINE_list("attention_hidden_units", "80,40", "Widths of DIN's unit.")
flags.DEFINE_enum("attention_activation", "dice", ["dice", "relu"], "In DIN's unit.")
flags.DEFINE_float("dropout", 0.0, "Of the final MLP.", 0, 1)
flags.DEFINE_float(
    "id_dropout", 10, "Ids of a feature are hidden at x / (x + frequency).", 0
)
flags.DEFINE_bool("products", False, "Products beside the attentions' outputs.")
flags.DEFINE_integer("image_embedding_dim", 128, "Width of an image.", lower_bound=1)
flags.DEFINE_list("cnn_filters", "64,128", "Filters of the trainable CNN.")
flags.DEFINE_enum("image_attention", "din", IMAGE_ATTENTIONS, "Over images.")
flags.DEFINE_enum("similarity", "none", SIMILARITIES, "Of candidate and history.")
flags.DEFINE_enum("image_sides", "both", IMAGE_SIDES, "Whose images the model sees.")
flags.DEFINE_enum("cnn_backbone", "MobileNetV3Small", sorted(BACKBONES), "Of cscnn.")
flags.DEFINE_string("cnn_layer", None, "Of cscnn; default: the backbone's.")
flags.DEFINE_enum("cnn_attention", "category", CNN_ATTENTIONS, "Of cscnn.")
flags.DEFINE_bool(
    "channel_attention", None, "Of the trainable CNN; hccm has it, others do not."
)
flags.DEFINE_bool("prior_channel", True, "The prior as a channel of hccm's maps.")
flags.DEFINE_enum("projection", "trainable", PROJECTIONS, "Of din_fixed_cnn.")


def _model_options():
    """The flags of `ModelOptions`, lists as tuples of ints."""
    options = {}
    names = [field.name for field in dataclasses.fields(ModelOptions)]
    for name in filter(FLAGS.__contains__, names):
        value = FLAGS[name].value
        if isinstance(value, list):
            try:
                value = tuple(int(entry) for entry in value)
            except ValueError as error:
                raise InputError(
                    f"--{name}: integers separated by commas. Received: {value}"
                ) from error
        options[name] = value
    return options


def run():
    """One training run, as the flags say."""
    run_dir = pathlib.Path(FLAGS.run_dir)
    if FLAGS.explain and FLAGS.image_dir is None:
        raise InputError("--explain shows the images and needs --image_dir")
    if FLAGS.explain and FLAGS.model == "base":
        raise InputError("--explain: model base has no attention to show")
    if FLAGS.shuffle_images or FLAGS.shuffle_categories:
        if FLAGS.explain:
            raise InputError("--explain would show what a control's model was not told")
        if FLAGS.export_dir:
            raise InputError("--export_dir: a control is not for serving")
    strategy = None
    if FLAGS.strategy != "one_device":
        strategy = make_strategy(FLAGS.strategy)
    estimator = CTREstimator(
        model=FLAGS.model,
        feature_maps=FLAGS.feature_maps,
        image_dir=FLAGS.image_dir,
        epochs=FLAGS.epochs,
        patience=FLAGS.patience,
        batch_size=FLAGS.batch_size,
        learning_rate=FLAGS.learning_rate,
        seed=FLAGS.seed,
        max_history=FLAGS.max_history,
        shuffle_images=FLAGS.shuffle_images,
        shuffle_categories=FLAGS.shuffle_categories,
        image_size=FLAGS.image_size,
        cnn_weights=FLAGS.cnn_weights,
        pretrain_epochs=FLAGS.pretrain_epochs,
        group_by_item=FLAGS.group_by_item,
        run_dir=run_dir,
        resume=FLAGS.resume,
        warm_start_from=FLAGS.warm_start_from,
        warm_start=FLAGS.warm_start,
        model_options=_model_options(),
        strategy=strategy,
    )
    estimator.fit(FLAGS.data_dir)
    test = estimator.predictions(FLAGS.data_dir)
    if strategy is not None and not is_chief(strategy):
        return
    estimator.save(run_dir)
    test.to_parquet(run_dir / "test_predictions.parquet")
    print(json.dumps(write_metrics(estimator, test, run_dir)))
    if FLAGS.export_dir:
        version = estimator.export(FLAGS.export_dir, FLAGS.representation_dtype)
        print(f"exported {version}")
        rows = Impressions(FLAGS.data_dir, "test", 3).rows
        with_images = FLAGS.model in IMAGE_MODELS
        request = impressions_request(
            rows, estimator.schema_, with_images, sides(estimator.model_)
        )
        request = json.dumps(to_json("serving_default", request))
        (run_dir / "request.json").write_text(request)
    if FLAGS.explain:
        page = run_dir / "explanation.html"
        estimator.explain(FLAGS.data_dir, page, FLAGS.image_dir, FLAGS.explain)
        print(f"wrote {page}")


def main(argv):
    """Runs the command line."""
    del argv
    if FLAGS.compare:
        # The runs are processes of their own, to which it leaves the GPUs.
        tf.config.set_visible_devices([], "GPU")
        with report_input_errors():
            compare(FLAGS, subprocess_trainer(sys.argv[0]))
        return
    if FLAGS.strategy not in CLUSTER_STRATEGIES:
        # What makes a seed reproduce a run exactly, parallel sums included.
        tf.config.experimental.enable_op_determinism()
        with report_input_errors(), _preemption_ends_the_run():
            run()
        return
    try:
        with report_input_errors(), _preemption_ends_the_run():
            run()
        if FLAGS.strategy == "parameter_server":
            # Otherwise TensorFlow waits for a worker that died last, without end.
            _end(0)
    except SystemExit as end:
        _end(end.code)
    except tf.errors.OpError as error:
        print(
            "error: a process of the cluster was lost, or failed; start those that "
            f"ended with --resume. TensorFlow says: {error}"
        )
        _end(LOST_PROCESS)
    except Exception:
        traceback.print_exc()
        _end(1)


@contextlib.contextmanager
def _preemption_ends_the_run():
    try:
        yield
    except Preempted:
        print(f"ended by SIGTERM; go on with --resume --run_dir={FLAGS.run_dir}")
        sys.exit(PREEMPTED)


def _end(code):
    """Ends this process, also while its threads wait for others of the cluster."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    app.run(main)
