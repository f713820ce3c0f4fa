"""One run of `train_main.py`: trains or opens a model, tests, exports, explains."""

import contextlib
import json
import os
import sys
import traceback

import pandas as pd
import tensorflow as tf
from absl.flags import FLAGS

from hccm_tf import finite_json
from hccm_tf.atomic import new_file, write_text
from hccm_tf.commands import say_next
from hccm_tf.comparison.slices import read_columns
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import (
    LOST_PROCESS,
    PREEMPTED,
    report_input_errors,
)
from hccm_tf.explanation import write_explanation
from hccm_tf.explanation.projector import write_projector
from hccm_tf.metrics import evaluate_frame
from hccm_tf.models import Trees
from hccm_tf.result_checks import check_before, check_results, has_verdict
from hccm_tf.run_folder import RunFolder
from hccm_tf.runs import read_configuration
from hccm_tf.serving.export import export
from hccm_tf.serving.model_card import Origin
from hccm_tf.serving.request import Impressions, impressions_request, to_json
from hccm_tf.training.fit import fit, run_in_training
from hccm_tf.training.preemption import Preempted
from hccm_tf.training.strategies import CLUSTER_STRATEGIES, is_chief, make_strategy
from hccm_tf.trees.fit import fit_trees
from hccm_tf.verdict.aucs import aucs_of
from hccm_tf.verdict.give import give_verdict

# What joins predictions to the log, beside the row.
LOG_IDS = ("user_id", "item_id", "timestamp")


def run(configuration, results, from_run=None):
    """Does a run, and ends the program as its outcome wants it.

    Args:
        configuration: `Configuration`.
        results: `hccm_tf.flags.groups.ResultOptions`.
        from_run: folder of the run that is taken as it is, if one is.
    """
    if configuration.strategy not in CLUSTER_STRATEGIES:
        # What makes a seed reproduce a run exactly, parallel sums included.
        tf.config.experimental.enable_op_determinism()
        with report_input_errors(FLAGS), _preemption_ends_the_run(configuration):
            _run(configuration, results, from_run)
        return
    try:
        with report_input_errors(FLAGS), _preemption_ends_the_run(configuration):
            _run(configuration, results, from_run)
        if configuration.strategy == "parameter_server":
            # Otherwise TensorFlow waits for a worker that died last, without end.
            _end(0)
    except SystemExit as end:
        _end(end.code)
    except tf.errors.OpError as error:
        print(
            "error: a process of the cluster was lost, or failed; start those that "
            f"ended with --resume. TensorFlow says: {error}",
            file=sys.stderr,
        )
        _end(LOST_PROCESS)
    except Exception:
        traceback.print_exc()
        _end(1)


def _run(configuration, results, from_run):
    check_results(configuration, results, from_run)
    folder = RunFolder(configuration.run_dir or from_run)
    strategy = None
    if configuration.strategy != "one_device":
        strategy = make_strategy(configuration.strategy)
    if strategy is None or is_chief(strategy):
        check_before(configuration, results, folder)
    validation = test = None
    with run_in_training(configuration, strategy):
        if configuration.model is Trees:
            fitted = fit_trees(configuration)
        else:
            fitted = fit(configuration, strategy)
        if configuration.run_dir is not None:
            # With all processes of a cluster, before all but one end.
            validation, test = map(fitted.predictions, ("validation", "test"))
        if strategy is not None and not is_chief(strategy):
            return
        if configuration.run_dir is not None:
            fitted.trained.save(folder.path)
            with new_file(folder.predictions) as file:
                _with_ids(test, fitted.batches.data_dir).to_parquet(file)
            metrics = _write_metrics(fitted, validation, test, folder)
            print(finite_json.to_text(metrics))
        version = _write_results(fitted, results, folder, validation, test)
        try:
            if has_verdict(configuration, results):
                photos_of = configuration if results.check_photos else None
                give_verdict(fitted, validation, test, folder, photos_of, strategy)
        finally:
            # What is made is there, whatever ends a verdict; SIGTERM says how to go on.
            if not isinstance(sys.exception(), Preempted):
                _say_next(configuration, version, folder)


def _say_next(configuration, version, folder):
    """Says what to type next: a question to the export, or the export itself."""
    model = configuration.model
    if version is not None:
        say_next(["hccm-ask", version, folder.request])
    elif model is not Trees and not configuration.settings.is_control:
        export_to = f"--export_dir=saved_models/{model.name}"
        say_next(["hccm-train", f"--from_run={folder.path}", export_to])


def _with_ids(test, data_dir):
    """Predictions of the test split with what DATA has of the log's ids and times."""
    names = [name for name in LOG_IDS if name in DataFolder(data_dir).columns()]
    of_log = read_columns(data_dir, "test", ["label", *names])
    for place, name in enumerate(names, start=1):
        values = of_log[name]
        if values.dtype == object:
            values = values.str.decode("utf-8")
        test.insert(place, name, values)
    return test


def _write_results(fitted, results, folder, validation, test):
    """Exports and explains, as far as it is asked for; the version, if there is one.

    There are no predictions, both are `None`, of a run that is taken as it is.
    """
    batches, version = fitted.batches, None
    if results.export_dir is not None:
        version = export(
            fitted.trained,
            batches.data_dir,
            batches.images,
            results.export_dir,
            results.representation_dtype,
            _origin(fitted.trained, folder, validation, test),
        )
        print(f"exported {version}")
        _write_request(fitted, folder)
    if results.explain:
        image_dir = fitted.trained.configuration.image_dir
        page = folder.explanation
        write_explanation(page, fitted.trained, batches, image_dir, results.explain)
        print(f"wrote {page}")
    if results.projector:
        place, image_dir = folder.projector, fitted.trained.configuration.image_dir
        write_projector(place, fitted.trained, batches, image_dir, results.projector)
        print(f"wrote {place}: tensorboard --logdir={folder.logs} shows it")
    return version


def _origin(trained, folder, validation, test):
    """What the export's card says of the run, `Origin`."""
    configuration = trained.configuration
    if test is None:
        configuration = read_configuration(folder.path)
        if folder.predictions.exists():
            test = pd.read_parquet(folder.predictions)
    metrics = folder.read_metrics() if folder.metrics.exists() else {}
    aucs = aucs_of(trained.schema, validation, test)
    return Origin(folder.path.resolve().name, configuration, metrics, aucs)


def _write_metrics(fitted, validation, test, folder):
    """Writes `metrics.json` of a run and returns its content."""
    trained, training = fitted.trained, fitted.training
    examples = DataFolder(fitted.batches.data_dir).num_impressions("train")
    examples *= training["epochs"]
    content = {
        "model": trained.name,
        "seed": trained.configuration.settings.seed,
        "validation": evaluate_frame(validation),
        "test": evaluate_frame(test),
        "examples_per_second": examples / max(training["seconds"], 1e-9),
        "training": {**training, "parameters": trained.num_parameters},
    }
    folder.write_metrics(content)
    return content


def _write_request(fitted, folder):
    """Writes a first request for the export."""
    rows = Impressions(fitted.batches.data_dir, "test", 3).rows
    trained = fitted.trained
    request = impressions_request(
        rows, trained.schema, trained.definition.has_images, trained.definition.sides
    )
    request = json.dumps(to_json("serving_default", request))
    write_text(folder.request, request)


@contextlib.contextmanager
def _preemption_ends_the_run(configuration):
    try:
        yield
    except Preempted:
        print(
            f"ended by SIGTERM; go on with --resume --run_dir={configuration.run_dir}"
        )
        sys.exit(PREEMPTED)


def _end(code):
    """Ends this process, also while its threads wait for others of the cluster."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
