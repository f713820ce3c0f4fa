"""What a run leaves on disk: the one place that knows its files."""

import contextlib
import json
import pathlib

from hccm_tf.atomic import only_writer
from hccm_tf.errors import InputError


class RunFolder:
    """The folder RUN of a training run.

    Args:
        path: str or `pathlib.Path`.

    Attributes:
        path: the folder, `pathlib.Path`.
        model: the trained Keras model.
        schema: folder of the `Schema` that it was trained with.
        description: JSON with the format's version, how the model was built and by
            which versions of the packages.
        flags: a flagfile for `train_main.py` that makes the same run.
        metrics: JSON with the metrics of the best epoch; written last.
        predictions: Parquet with the predictions of the test split.
        history: CSV with a row for each epoch.
        logs: folder of TensorBoard logs.
        checkpoints: folder of the checkpoints.
        request: JSON, a first request for the run's export.
        explanation: the page of --explain.
        log: what the run printed, where a comparison started it.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.model = self.path / "model.keras"
        self.schema = self.path / "schema"
        self.description = self.path / "run.json"
        self.flags = self.path / "run.flags"
        self.metrics = self.path / "metrics.json"
        self.predictions = self.path / "test_predictions.parquet"
        self.history = self.path / "history.csv"
        self.logs = self.path / "logs"
        self.checkpoints = self.path / "checkpoints"
        self.request = self.path / "request.json"
        self.explanation = self.path / "explanation.html"
        self.log = self.path / "log.txt"

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
        if self.exists() and not resume:
            raise InputError(
                f"--run_dir={self.path} holds a run already: go on with --resume, "
                "name another folder, or remove it"
            )
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(only_writer(self.path, wait=False))
            except BlockingIOError as error:
                raise InputError(
                    f"--run_dir={self.path}: another process trains this run; wait "
                    "for it or end it, or name another folder"
                ) from error
            yield

    def read_metrics(self):
        """Content of `metrics`.

        Raises:
            InputError: if the run has none.
        """
        try:
            return json.loads(self.metrics.read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.metrics}: no metrics of a run ({error}); name the folder of a "
                "run that has ended"
            ) from error
