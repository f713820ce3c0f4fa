"""What `build_examples` is told, and what its steps share."""

import bisect
import dataclasses
import functools
import json
import pathlib

import pyarrow as pa

from hccm_tf.atomic import new_file
from hccm_tf.data.schema import Schema
from hccm_tf.preparation.examples.log_values import SPLITS

FOLDERS = (
    "shards",
    "pieces",
    "requests",
    "request_keys",
    "counts",
    "features",
    "written",
)


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What a data folder is like beside its columns.

    Args:
        negative_keep_rate: share of the training split's negatives that is kept;
            `None` for the schema's, which is 1 unless it says otherwise.
        splits: names of the splits to write, which must be there.
        num_shards: number of shards of each split; `None` for one for each 100,000
            impressions. One shard keeps the log's order but for the training split.
        min_count: occurrences below which a value is out of the vocabulary.
        max_vocabulary: number of values above which a vocabulary becomes a hash.
        max_bad_rows: number of bad rows to skip before one is an error.
        max_unknown_share: share of the impressions, or of the items of ready-made
            histories, that the catalogue may lack.
        numeric: names of columns that are numbers, whatever they look like.
        categorical: names of columns that are categories.
        history_columns: names of the items' attributes that histories hold beside
            `item_id` and `category`; `None` for all that
            `hccm_tf.preparation.examples.infer_schema.history_columns` finds.
        processes: number of worker processes; `None` for one a core. A small log takes
            none.
    """

    negative_keep_rate: float | None = None
    splits: tuple = SPLITS
    num_shards: int | None = None
    min_count: int = 1
    max_vocabulary: int = 10_000_000
    max_bad_rows: int = 0
    max_unknown_share: float = 0.5
    numeric: tuple = ()
    categorical: tuple = ()
    history_columns: tuple | None = None
    processes: int | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """What the steps of `build_examples` share; workers get it by pickle.

    Args:
        output: folder of the data set.
        work: folder for the files between the steps.
        pieces: list of `Piece` of the log.
        num_shards: number of shards of each split.
        types: name → Arrow type of the log's columns, as they are read.
        columns: name → type of its ids and attributes, as they become.
        schema: `Schema`, without vocabularies unless they are given.
        seed: of the order of training requests and of the sample of negatives.
        options: `BuildOptions`.
        rows: about how many the log has.
    """

    output: pathlib.Path
    work: pathlib.Path
    pieces: list
    num_shards: int
    types: dict
    columns: dict
    schema: Schema
    seed: int
    options: BuildOptions
    rows: int

    @functools.cached_property
    def items(self):
        """Arrow table of the catalogue by sorted `key`; mapped, shared by workers."""
        with pa.memory_map(str(self.work / "items.arrow")) as source:
            return pa.ipc.open_file(source).read_all()

    @functools.cached_property
    def first_rows(self):
        """Number of the first row in the log of each piece, list of int."""
        return json.loads((self.work / "first_rows.json").read_text())

    def place_of(self, row):
        """Where a row of the log is, as errors say it: its file and row."""
        number = bisect.bisect_right(self.first_rows, row) - 1
        piece = self.pieces[number]
        return (
            f"{piece.file}, row {piece.first_row + row - self.first_rows[number] + 1}"
        )

    def leave_warnings(self, name, lines):
        """Leaves lines, list of str, that the tool says when it is done."""
        if lines:
            write_json(self.work / f"warnings-{name}.json", lines)

    def make_folders(self):
        """Makes the folders that the steps write into, once, before they run."""
        for name in FOLDERS:
            (self.work / name).mkdir()
        for feature in self.schema.scalars:
            self.counts_folder(feature).mkdir()

    def counts_folder(self, feature):
        """Where a feature's values lie, one file for each shard."""
        return self.work / "counts" / f"{feature.name}.values"

    def shard_folder(self, shard):
        """Where the rows of a shard's users lie, one file for each piece of the log."""
        return self.work / "shards" / f"{shard:05d}"


def write_json(path, content):
    """Writes a small file between the steps, whole or not at all."""
    with new_file(path, lasting=False) as temporary:
        temporary.write_text(json.dumps(content))
