r"""Scores a table of impressions with the model of a run.

    python -m hccm_tf.predict --from_run=RUN --impressions=today.parquet \
        --history=log.csv --output=scores.parquet

The table has the columns of the log that the run was trained on; it may lack `label`,
and be larger than memory. SCORES has its ids and times (dates of CSV as text), `row`,
the number of the row in the table, and `ctr`, the probability of a click, in the
table's order; `ctr` is missing where the item is not in the catalogue, which is that of
the run's DATA unless --items names another one. New photos need --feature_maps that
hold them, or --image_dir.

Histories are joined point in time: of the clicks of --history, a log of earlier days,
and of those of the table itself, its rows of split `history` included, which are not
scored. Without --history, only clicks within the table are histories. A list column
`history_item_id` brings them ready-made.
"""

import contextlib
import dataclasses
import io
import pathlib
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from absl import flags

from hccm_tf.atomic import check_can_make, new_file
from hccm_tf.commands import run
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.shard_check import checked
from hccm_tf.errors import InputError, errors_begin_with
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.examples.log_values import HISTORY_ITEM
from hccm_tf.preparation.tables import pieces, read_batches, read_types
from hccm_tf.progress import advance, progress
from hccm_tf.runs import TrainedModel
from hccm_tf.training.evaluation import PREDICTION_COLUMNS, impressions, infer_function
from hccm_tf.training.fit import open_batches

FLAGS = flags.FLAGS
IDS = ("user_id", "item_id", "timestamp", "request_id")
# What a row is beside its features.
OF_ROWS = (*IDS, "label", HISTORY_ITEM)


def predict(from_run, table, output, items=None, history=None, **images):
    """Scores a table, see the module.

    Args:
        from_run: folder of a run.
        table: path of the impressions, CSV or Parquet.
        output: Parquet file to write, whole or not at all; it must not exist.
        items: path of the catalogue; `None` for that of the run's data folder.
        history: path of a log whose clicks feed the histories too, or `None`.
        **images: `feature_maps` and `image_dir` in the place of the run's, if not
            `None`.

    Raises:
        InputError: names the file, column, row or argument to mend.
    """
    output = pathlib.Path(output)
    _check_output(output)
    trained = TrainedModel.load(from_run)
    told = {name: path for name, path in images.items() if path is not None}
    configuration = dataclasses.replace(trained.configuration, **told)
    trained = dataclasses.replace(trained, configuration=configuration)
    with tempfile.TemporaryDirectory(
        prefix=f"{output.name}.", suffix=".part", dir=output.parent
    ) as work:
        work = pathlib.Path(work)
        types, count = _build(trained, work, table, items, history)
        scores = np.memmap(work / "scores", np.float32, "w+", shape=max(count, 1))
        scores[:] = np.nan
        scored, empty = _score(trained, work / "data", scores)
        written, without = _write(output, table, types, scores)
    print(
        f"{written} impressions, {without} of them without a score, because their "
        f"items are not in the catalogue -> {output}"
    )
    if empty and history is None and HISTORY_ITEM not in types:
        print(
            f"{empty} of {scored} impressions have no history: --history=LOG gives "
            "earlier clicks"
        )


def _check_output(output):
    with errors_begin_with("output="):
        check_can_make(output)
    if output.suffix != ".parquet":
        raise InputError(f"output={output}: name a .parquet file")
    if output.exists():
        raise InputError(f"output={output} exists already: remove it or name another")
    if not output.parent.is_dir():
        raise InputError(f"output={output}: there is no folder {output.parent}")


def _build(trained, work, table, items, history):
    """Makes the data folder `work / "data"`, whose split `test` is the table.

    Returns:
        `(types, count)`: name → Arrow type of the table's columns, and the number of
        its rows.
    """
    if items is None:
        items = work / "items.parquet"
        data = DataFolder(trained.configuration.data_dir)
        catalogue = data.catalogue(columns=None)
        pq.write_table(catalogue.drop_columns("image_key"), items)
    of_items = read_types(items, ["item_id"])
    features = [f.name for f in trained.schema.scalars if f.name not in of_items]
    log = work / "log"
    log.mkdir()
    texts = _texts(trained.schema, items)
    types = read_types(table, ["user_id", "item_id"], texts, dates=["timestamp"])
    _check_features(table, types, features)
    columns = [name for name in (*OF_ROWS, *features) if name in types]
    # By the alphabet before the other: rows have the numbers that they have in it.
    count = _copy(table, types, columns, log / "0.parquet")
    if history is not None:
        needed = ["user_id", "item_id", "timestamp", "label"]
        before = read_types(history, needed, texts, dates=["timestamp"])
        # A request is what is scored.
        names = [name for name in columns if name in before and name != "request_id"]
        names = list(dict.fromkeys([*names, "label"]))
        _copy(history, before, names, log / "1.parquet", "history")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            build_examples(
                items,
                log,
                work / "data",
                schema=trained.schema,
                splits=("test",),
                max_unknown_share=1.0,
            )
    except InputError as error:
        message = str(error).replace(str((log / "0.parquet").resolve()), str(table))
        message = message.replace(str((log / "1.parquet").resolve()), str(history))
        raise InputError(message.replace(str(log.resolve()), str(table))) from error
    return types, count


def _texts(schema, items):
    """Names of columns that are text, also where they look like numbers."""
    texts = [feature.name for feature in schema.scalars if feature.dtype == "string"]
    if pa.types.is_string(read_types(items, ["item_id"])["item_id"]):
        texts.append("item_id")
    return texts


def _check_features(table, types, features):
    missing = [name for name in features if name not in types]
    if missing:
        raise InputError(
            f"{table}: no column {', '.join(missing)}, which the model takes; what is "
            f"a column of the items comes with items. Received: {', '.join(types)}"
        )


def _splits(batch, split):
    """The split of each row: `history` where the table says so, or else `split`."""
    if "split" not in batch.schema.names:
        return pa.array([split] * len(batch), pa.string())
    is_history = pc.equal(batch["split"].cast(pa.string()), "history")
    return pc.if_else(pc.fill_null(is_history, False), "history", split)


def _labels(table, batch):
    """The label of each row, 0 where it is not known."""
    if "label" not in batch.schema.names:
        return pa.array(np.zeros(len(batch)))
    try:
        return pc.fill_null(batch["label"].cast(pa.float64()), 0.0)
    except pa.ArrowInvalid as error:
        raise InputError(f"{table}: column label: {error}") from error


def _copy(table, types, columns, path, split="test"):
    """Writes columns of a table with split and label; the number of rows."""
    types = {name: types[name] for name in {*columns, "label", "split"} & {*types}}
    # As text, times of table and history need not be of one type.
    times = dict.fromkeys({"timestamp"} & {*columns}, pa.string())
    fields = {name: types[name] for name in columns} | times
    fields |= {"label": pa.float64(), "split": pa.string()}
    schema, rows = pa.schema(fields.items()), 0
    with pq.ParquetWriter(path, schema) as writer:
        for piece in pieces(table):
            for _, batch in read_batches(piece, types):
                found = {name: batch[name] for name in columns}
                found["label"] = _labels(table, batch)
                found["split"] = _splits(batch, split)
                writer.write_batch(pa.record_batch(found, schema=schema))
                rows += len(batch)
    return rows


def _score(trained, data_dir, scores):
    """Predicts split `test` into an array, by the rows of the table.

    Returns:
        `(scored, empty)`: number of impressions that have a score, and of those among
        them whose history is empty, 0 for a model that takes none.
    """
    scored = empty = 0
    batches = open_batches(trained, data_dir)
    infer = infer_function(trained.keras_model)
    scoring = progress("scoring", len(scores), "impression")
    with checked(batches.images), scoring:
        for batch in batches.dataset("test"):
            values = impressions(batch, infer(batch[0]), 0)
            values = dict(zip(PREDICTION_COLUMNS, values, strict=True))
            ctr = trained.schema.unsampled(values["ctr"])
            scores[values["row"].numpy()] = ctr.numpy()
            scored += len(ctr)
            empty += _without_history(trained.schema, batch[0])
            advance(len(ctr))
    return scored, empty


def _without_history(schema, inputs):
    """Number of a batch's impressions whose history is empty."""
    if not schema.sequences:
        return 0
    is_empty = (inputs[schema.sequences[0].input_name].numpy() == 0).all(axis=1)
    return int((inputs["candidate_mask"].numpy() & is_empty[:, None]).sum())


def _write(output, table, types, scores):
    """Writes ids and scores of a table; the number of rows, and of those without."""
    names = [name for name in IDS if name in types]
    fields = {"row": pa.int64()} | {name: types[name] for name in names}
    schema = pa.schema((fields | {"ctr": pa.float32()}).items())
    rows = written = without = 0
    with new_file(output) as file, pq.ParquetWriter(file, schema) as writer:
        for piece in pieces(table):
            for _, batch in read_batches(piece, types):
                row = np.arange(rows, rows + len(batch))
                found = {"row": pa.array(row)} | {name: batch[name] for name in names}
                found["ctr"] = pa.array(scores[row], from_pandas=True)
                is_scored = pc.equal(_splits(batch, "test"), "test")
                found = pa.record_batch(found).filter(is_scored)
                writer.write_batch(found)
                rows += len(batch)
                written += len(found)
                without += found["ctr"].null_count
    return written, without


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string("from_run", None, "The folder RUN of a run.", required=True)
    flags.DEFINE_string(
        "impressions",
        None,
        "The table to score: a CSV or Parquet file or folder.",
        required=True,
    )
    flags.DEFINE_string("output", None, "The Parquet file to write.", required=True)
    flags.DEFINE_string(
        "items", None, "The catalogue. By default that of the run's DATA."
    )
    flags.DEFINE_string(
        "history",
        None,
        "A log whose clicks feed the histories too. By default only clicks within the "
        "table do.",
    )
    flags.DEFINE_string("feature_maps", None, "The folder MAPS. By default the run's.")
    flags.DEFINE_string(
        "image_dir",
        None,
        "The folder of the images, for a model that takes pixels. By default the "
        "run's.",
    )


def main(words):
    """Runs the command line."""
    del words
    predict(
        FLAGS.from_run,
        FLAGS.impressions,
        FLAGS.output,
        FLAGS.items,
        FLAGS.history,
        feature_maps=FLAGS.feature_maps,
        image_dir=FLAGS.image_dir,
    )


if __name__ == "__main__":
    run(main, define_flags)
