"""Data folders made of data frames of impressions."""

import pathlib
import re
import tempfile

import numpy as np
import pandas as pd

from hccm_tf.atomic import new_file
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.examples.columns import ITEM_COLUMNS

KEY = ["user_id", "item_id", "timestamp"]
OF_THE_COMMAND = ", or allow more than max_bad_rows=0"


class FrameFolders:
    """The data folders of one catalogue's data frames, which live as long as this.

    Args:
        items: data frame of the catalogue: `item_id, image, category` and attributes.
        log: data frame of the impressions to train on, with `label` unless it is given
            apart and, optionally, `split`; by default the newest tenth is the
            validation split.
        labels: `[N]`, 0/1; `None` for those of `log`.

    Attributes:
        training: path of the data folder with splits `train` and `validation`.

    Raises:
        InputError: as `check_frame` and `build_examples`, or if `labels` are not those
            of the rows.
    """

    def __init__(self, items, log, labels=None):
        if items is None:
            raise InputError("items: a data frame of impressions needs the catalogue")
        check_frame("items", items, ITEM_COLUMNS)
        check_frame("X", log, KEY if labels is not None else [*KEY, "label"])
        if labels is not None:
            labels = np.asarray(labels)
            if labels.shape != (len(log),):
                raise InputError(
                    f"y: a label for each of the {len(log)} rows of X. Received: "
                    f"shape {labels.shape}"
                )
            log = log.assign(label=labels)
        self._items, self._log = items, log
        _check_items(items, log)
        if "split" not in log:
            newest = _moments(log).rank(method="min", pct=True) > 0.9
            log = log.assign(split=np.where(newest, "validation", "train"))
        self._folder = _temporary_folder()
        self.training = pathlib.Path(self._folder.name) / "data"
        _build(items, log, self.training, splits=("train", "validation"))

    def __reduce__(self):
        # Another process has folders of its own.
        return FrameFolders, (self._items, self._log)

    def save(self, folder):
        """Writes the data frames into a folder, from which `load` reads them."""
        folder.mkdir(exist_ok=True)
        for name, frame in (("items", self._items), ("log", self._log)):
            with new_file(folder / f"{name}.parquet") as file:
                frame.to_parquet(file, index=False)

    @classmethod
    def load(cls, folder):
        """Makes the data folders again."""
        return cls(
            *(pd.read_parquet(folder / f"{n}.parquet") for n in ("items", "log"))
        )

    def scoring(self, frame, schema):
        """Path of a data folder with split `test`, until the next one is made.

        Its histories also see the clicks of the log. In the order of `row`, its
        impressions are those of the frame.

        Args:
            frame: data frame of impressions; with `label`, an impression that the log
                holds too brings its own click.
            schema: `Schema` that the model was fitted with.

        Raises:
            InputError: as `check_frame`, for what the log has of ids and features.
        """
        features = [feature.name for feature in schema.features]
        needed = dict.fromkeys([*KEY, *features])
        check_frame("X", frame, [name for name in needed if name in self._log])
        if frame.empty:
            raise InputError("X: one impression or more. Received: none")
        _check_items(self._items, frame)
        clicks = self._log[self._log.label == 1].assign(split="history")
        if "label" in frame:
            again = pd.MultiIndex.from_frame(clicks[KEY]).isin(
                pd.MultiIndex.from_frame(frame[KEY])
            )
            clicks = clicks[~again]
        # Of clicks neither counts, but it must be there as the frame has it.
        clicks = clicks.drop(columns=["weight", "request_id"], errors="ignore")
        if "weight" in frame:
            clicks["weight"] = 1.0
        if "request_id" in frame:
            clicks["request_id"] = frame.request_id.iloc[0]
        frame = frame.assign(split="test", label=frame.get("label", 0))
        log = pd.concat([clicks, frame], ignore_index=True)
        self._scored = _temporary_folder()
        path = pathlib.Path(self._scored.name) / "data"
        _build(self._items, log, path, splits=("test",), schema=schema)
        return path


def check_frame(name, frame, columns):
    """Raises an `InputError` unless it is a data frame with some columns.

    Args:
        name: of the argument.
        frame: what was given.
        columns: names; further ones are allowed.
    """
    if not isinstance(frame, pd.DataFrame):
        shape = getattr(frame, "shape", None)
        raise InputError(
            f"{name}: a pandas data frame with the columns {', '.join(columns)}. "
            f"Received: {type(frame).__name__}{f' of shape {shape}' if shape else ''}"
        )
    names = list(frame.columns)
    for column in names:
        if not isinstance(column, str) or names.count(column) > 1:
            raise InputError(
                f"{name}: columns are named by text, and each but once. Received: "
                f"{column!r}"
            )
    missing = [column for column in columns if column not in names]
    if missing:
        is_index = frame.index.name in missing
        advice = f"; it is the index: take {name}.reset_index()" if is_index else ""
        raise InputError(
            f"{name}: no column {', '.join(missing)}{advice}. Received columns: "
            f"{', '.join(names)}"
        )
    if "timestamp" in columns and _is_words(frame.timestamp):
        raise InputError(
            f"{name}: column timestamp: text; pandas.to_datetime makes times of it. "
            f"Received: {frame.timestamp.dropna().iloc[0]!r}"
        )


def _is_words(column):
    """Whether a column is text whose first value is no number."""
    if pd.api.types.infer_dtype(column, skipna=True) != "string":
        return False
    return not column.dropna().iloc[0].strip().lstrip("-").isdigit()


def _moments(log):
    """The time of each impression's request, which is in one split as a whole."""
    if "request_id" not in log:
        return log.timestamp
    return log.groupby("request_id").timestamp.transform("min")


def _temporary_folder():
    return tempfile.TemporaryDirectory(prefix="hccm_tf-")


def _check_items(items, frame):
    """Raises an `InputError` if impressions show items that the catalogue lacks."""
    unknown = ~frame.item_id.isin(items.item_id)
    if unknown.any():
        raise InputError(
            f"item_id: {unknown.sum()} impressions of items that `items` does not "
            f"hold; the first: {frame.item_id[unknown].iloc[0]}"
        )


def _build(items, log, path, **arguments):
    try:
        build_examples(items, log, path, num_shards=1, **arguments)
    except InputError as error:
        # The files are those of the data frames, and so is what can be mended.
        message = str(error).replace(OF_THE_COMMAND, "")
        for file, frame in (("impressions", "X"), ("items", "items")):
            message = re.sub(rf"\S+{file}\.parquet: ({file}, )?", f"{frame}: ", message)
        raise InputError(message) from error
