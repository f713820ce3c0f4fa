"""The files of a run; nothing else knows them."""

import contextlib
import pathlib
import shutil

from hccm_tf import finite_json
from hccm_tf.atomic import check_can_make, locked, remove_unfinished, write_text
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.files import read_json


class RunFolder:
    """The folder RUN of a training run.

    Args:
        path: str or `pathlib.Path`.

    Attributes:
        path: the folder, `pathlib.Path`.
        model: the trained Keras model.
        schema: folder of the `Schema` that it was trained with.
        description: JSON with the format's version, the configuration, what the
            feature maps depend on, and the versions of the packages.
        beginning: JSON with what each of its steps depends on, for a resume.
        flags: a flagfile for `train_main.py` that makes the same run.
        metrics: JSON with the metrics of the best epoch; written last.
        predictions: Parquet with the predictions of the test split.
        history: CSV with a row for each epoch.
        logs: folder of TensorBoard logs, by epoch.
        step_logs: the folder among them of logs by step.
        projector: likewise, of the items of --projector.
        checkpoints: folder of the checkpoints.
        request: JSON, a first request for the run's export.
        explanation: the page of --explain.
        pixels: the images of the catalogue while parameter servers' workers read them.
        frames: folder of the data frames that an estimator was fitted on.
        log: what the run printed, where a comparison started it.
        arm: JSON with the flags and the data of such a run.
        lock: held by the process that trains the run.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.model = self.path / "model.keras"
        self.schema = self.path / "schema"
        self.description = self.path / "run.json"
        self.beginning = self.path / "beginning.json"
        self.flags = self.path / "run.flags"
        self.metrics = self.path / "metrics.json"
        self.predictions = self.path / "test_predictions.parquet"
        self.history = self.path / "history.csv"
        self.logs = self.path / "logs"
        self.step_logs = self.logs / "steps"
        self.projector = self.logs / "items"
        self.checkpoints = self.path / "checkpoints"
        self.request = self.path / "request.json"
        self.explanation = self.path / "explanation.html"
        self.pixels = self.path / "pixels.u8"
        self.frames = self.path / "frames"
        self.log = self.path / "log.txt"
        self.arm = self.path / "flags.json"
        self.lock = self.path / "lock"

    def exists(self):
        """Whether a run has left something that another would overwrite."""
        kept = self.model, self.checkpoints, self.history, self.metrics
        return any(path.exists() for path in kept)

    @contextlib.contextmanager
    def training(self, resume):
        """Keeps other processes from training this run, and an older run as it is.

        Args:
            resume: whether to go on with the run that is there.

        Raises:
            InputError: if there is a run and `resume` is false, or another process
                trains it.
        """
        with errors_begin_with("run_dir="):
            check_can_make(self.path / self.lock.name)
        is_new = not self.path.exists()
        with contextlib.ExitStack() as stack:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(self.lock))
            except BlockingIOError as error:
                raise InputError(
                    f"run_dir={self.path}: another process trains this run; wait "
                    "for it or end it, or name another folder"
                ) from error
            # Now that no other process can be about to leave one.
            if self.exists() and not resume:
                raise InputError(
                    f"run_dir={self.path}: it holds a run already; go on with "
                    "resume=True, name another folder, or remove it"
                )
            for path in (self.model, self.predictions, self.history, self.metrics):
                remove_unfinished(path)
            try:
                yield
            except InputError:
                if is_new and list(self.path.iterdir()) == [self.lock]:
                    shutil.rmtree(self.path)
                raise
            finally:
                self.pixels.unlink(missing_ok=True)

    def write_metrics(self, content):
        """Writes `metrics`, whole or not at all."""
        write_text(self.metrics, finite_json.to_text(content, indent=2) + "\n")

    def read_metrics(self):
        """Content of `metrics`, with NaN for what could not be computed.

        Raises:
            InputError: if the run has none.
        """
        try:
            return finite_json.with_nan(read_json(self.metrics))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.metrics}: no metrics of a run ({error}); name the folder of a "
                "run that has ended"
            ) from error
