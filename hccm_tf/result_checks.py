"""What a run could not do once it has trained, found before."""

from hccm_tf.atomic import check_can_make
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.labels import missing_label
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.images.places import check_image_dir
from hccm_tf.models import Trees
from hccm_tf.serving.versions import next_version
from hccm_tf.training.strategies import CLUSTER_STRATEGIES
from hccm_tf.trees.fit import check_trees


def check_results(configuration, results, from_run=None):
    """Raises an `InputError` for what a run could not do once it has trained."""
    model, settings = configuration.model, configuration.settings
    if results.explain and configuration.image_dir is None:
        _check_image_dir(configuration)
    if results.explain and not model.has_attention:
        raise InputError(f"--explain: model {model.name} has no attention to show")
    if results.explain and settings.is_control:
        raise InputError("--explain would show what a control's model was not told")
    if results.projector and settings.is_control:
        raise InputError("--projector would show what a control's model was not told")
    if model is Trees:
        if results.projector:
            raise InputError("--projector: trees have no vectors to show")
        if results.export_dir is not None:
            raise InputError(
                "--export_dir: trees are a bar to compare with, not to serve"
            )
        check_trees(configuration)
    if results.export_dir is not None and settings.is_control:
        raise InputError("--export_dir: a control is not for serving")
    if results.check_photos:
        _check_check_photos(configuration, results)
    if from_run is not None and configuration.run_dir is None:
        if results.export_dir is None and not (results.explain or results.projector):
            raise InputError(
                "--from_run: what to do with the run is missing: --export_dir, "
                "--explain, --projector or, for its metrics on other data, --data_dir "
                "and --run_dir"
            )


def _check_check_photos(configuration, results):
    """Raises an `InputError` unless a run can say if its photos pay."""
    if configuration.strategy in CLUSTER_STRATEGIES:
        raise InputError(
            "--check_photos trains on one machine; a cluster compares with a run of "
            "--shuffle_images"
        )
    if not has_verdict(configuration, results):
        raise InputError("--check_photos is a line of the verdict of a training")
    if configuration.warm_start_from is not None:
        raise InputError(
            "--check_photos: a warm start knows the photos already; check a training "
            "from scratch"
        )
    if not configuration.model.has_images:
        raise InputError(
            f"--check_photos: model {configuration.model.name} sees no photos"
        )
    if configuration.settings.shuffle_images:
        raise InputError("--check_photos: --shuffle_images has dealt them out already")


def has_verdict(configuration, results):
    """Whether a network is trained, by one process, and a word on it wanted."""
    if configuration.strategy in CLUSTER_STRATEGIES:
        return False
    trains = configuration.settings.epochs > 0 and configuration.model is not Trees
    return results.verdict and trains and configuration.run_dir is not None


def check_before(configuration, results, folder):
    """Likewise, in the process that writes: places to write, photos and labels."""
    if results.export_dir is not None:
        with errors_begin_with("export_dir="):
            check_can_make(next_version(results.export_dir))
        check_can_make(folder.request)
    if results.explain:
        check_can_make(folder.explanation)
    if results.projector:
        check_can_make(folder.projector)
    if results.check_photos:
        lacks = missing_label(DataFolder(configuration.data_dir), "test")
        if lacks:
            raise InputError(f"--check_photos: {lacks}; leave it out")
    shows = results.explain or results.projector
    if shows and configuration.image_dir is not None:
        _check_image_dir(configuration)


def _check_image_dir(configuration):
    """Raises an `InputError` unless there is a folder of the photos that need one."""
    images = DataFolder(configuration.data_dir).catalogue(["image"])["image"]
    check_image_dir(images.to_pylist(), configuration.image_dir)
