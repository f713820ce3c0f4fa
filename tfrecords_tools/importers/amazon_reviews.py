r"""Reads Amazon Reviews 2023 (McAuley Lab) into a shop's tables.

    python -m tfrecords_tools.import_amazon_reviews --output_dir=SHOP \
        --meta=meta_Toys_and_Games.jsonl.gz --train=Toys_and_Games.train.csv \
        --validation=Toys_and_Games.valid.csv --test=Toys_and_Games.test.csv

or with --reviews=Toys_and_Games.csv, the file before the split, instead of the three.
SHOP gets `items.parquet` and `impressions.parquet`.

- The catalogue is what has been reviewed and has metadata; other reviews are left out
  and counted. Items of the metadata that nobody reviewed are left out too: as negatives
  they would be told apart by their id alone.
- `image` is the URL of the main photo, `category` the last of `categories` or
  `main_category`, `price` a number where there is one.
- Every review is a click, whatever its rating. Each gets --negatives items that its
  user reviewed in none of the files, with the click's timestamp and split. They are one
  request, `request_id`, because a user has several reviews of one second.
- A `history` column is ignored: the reviews' times say the same.

Reviews and metadata are read in pieces. In memory are the reviewed items' ids and 8
bytes for each review, by which a clicked item is refused as a negative: 1.6 GB in all
for 30 million reviews of half a million items.
"""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from absl import flags

from hccm_tf.atomic import new_folder
from hccm_tf.commands import run
from hccm_tf.errors import InputError
from hccm_tf.progress import advance, progress
from tfrecords_tools.importers.amazon_metadata import ITEMS, read_metadata
from tfrecords_tools.importers.malformed import MALFORMED
from tfrecords_tools.importers.negatives import (
    draw_impressions,
    hash_ids,
    user_item_keys,
)
from tfrecords_tools.next_steps import say_preparation

CSV_BLOCK_BYTES = 1 << 23
META_ROWS = 10_000
# In milliseconds 1973: no review is older, and seconds are smaller.
OLDEST = 10**11
REVIEWS = {
    "user_id": pa.string(),
    "parent_asin": pa.string(),
    "timestamp": pa.int64(),
}
IMPRESSIONS = pa.schema(
    [
        ("user_id", pa.string()),
        ("request_id", pa.int64()),
        ("item_id", pa.string()),
        ("timestamp", pa.float64()),
        ("label", pa.int64()),
    ]
)
SPLIT = pa.field("split", pa.string())
SPLITS = ("train", "validation", "test")


def read_reviews(path):
    """Yields a review file's columns `REVIEWS` in record batches.

    Args:
        path: CSV file; `timestamp` is in milliseconds.

    Yields:
        `pyarrow.RecordBatch`.

    Raises:
        InputError: if a column or value is not as it must be.
    """
    row = 0
    try:
        batches = pa.csv.open_csv(
            path,
            pa.csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
            convert_options=pa.csv.ConvertOptions(
                column_types=REVIEWS, include_columns=list(REVIEWS)
            ),
        )
        for batch in batches:
            bad = pc.fill_null(pc.less(batch["timestamp"], OLDEST), True).to_numpy(
                zero_copy_only=False
            )
            if bad.any():
                place = int(np.flatnonzero(bad)[0])
                raise InputError(
                    f"{path}: column timestamp, row {row + place + 1}: not a time in "
                    f"milliseconds. Received: {batch['timestamp'][place]}"
                )
            yield batch
            row += len(batch)
            advance(len(batch))
    except InputError:
        raise
    except (OSError, *MALFORMED) as error:
        raise InputError(f"{path}: after row {row}: {error}") from error


def _string_keys(strings):
    return hash_ids(strings.to_numpy(zero_copy_only=False))


def _scan(files):
    """`(items, clicked)`: set of the reviewed items; all `user_item_keys`, sorted."""
    items, keys = set(), []
    for path in files:
        for batch in read_reviews(path):
            items.update(batch["parent_asin"].unique().to_pylist())
            users = _string_keys(batch["user_id"])
            keys.append(user_item_keys(users, _string_keys(batch["parent_asin"])))
    clicked = np.concatenate([np.zeros(0, np.uint64), *keys])
    clicked.sort()
    return items, clicked


def _write_items(source, wanted, target):
    """Writes the catalogue and returns its ids, a `pandas.Index`."""
    ids = []
    items = read_metadata(source, wanted)
    with pq.ParquetWriter(target, ITEMS) as writer:
        while rows := list(itertools.islice(items, META_ROWS)):
            ids += [row["item_id"] for row in rows]
            writer.write_table(pa.Table.from_pylist(rows, ITEMS))
    if not ids:
        raise InputError(
            f"{source}: no reviewed item is in it; give the metadata of the reviews' "
            f"category. Received: reviews of {len(wanted)} items"
        )
    return pd.Index(ids)


def _to_impressions(batch, first_request, items, labels, names, split):
    """The impressions of a batch of reviews.

    Args:
        batch: reviews, `[N]`.
        first_request: the first one's request.
        items: int64 `[N * (1 + negatives)]`, rows of `names`.
        labels: int64, of the same shape.
        names: Arrow array, the catalogue's ids.
        split: name or `None`.
    """
    rows = np.repeat(np.arange(len(batch)), len(items) // max(len(batch), 1))
    columns = {
        "user_id": batch["user_id"].take(pa.array(rows)),
        "request_id": first_request + rows,
        "item_id": names.take(pa.array(items)),
        "timestamp": batch["timestamp"].to_numpy()[rows] / 1000,
        "label": labels,
    }
    if split is not None:
        columns["split"] = pa.repeat(split, len(rows))
    return pa.table(columns)


def import_amazon_reviews(metadata, splits, output_dir, negatives=1, seed=0):
    """Writes the shop of a category of Amazon Reviews 2023.

    Args:
        metadata: file, `.jsonl` or `.jsonl.gz`.
        splits: dict split → review file; `{None: file}` writes no `split`.
        output_dir: folder to write.
        negatives: number of negatives for each review.
        seed: of the negatives.

    Raises:
        InputError: names file and line or row of what cannot be read.
    """
    rng = np.random.default_rng(seed)
    schema = IMPRESSIONS if None in splits else IMPRESSIONS.append(SPLIT)
    clicks = left_out = 0
    with new_folder(output_dir) as folder, progress("reading", None, "review"):
        reviewed, clicked = _scan(splits.values())
        ids = _write_items(metadata, reviewed, folder / "items.parquet")
        names = pa.array(ids.to_numpy(), pa.string())
        catalogue = _string_keys(names)
        with pq.ParquetWriter(folder / "impressions.parquet", schema) as writer:
            for split, path in splits.items():
                for batch in read_reviews(path):
                    items = ids.get_indexer(
                        batch["parent_asin"].to_numpy(zero_copy_only=False)
                    )
                    known = items >= 0
                    batch = batch.filter(pa.array(known))
                    users = _string_keys(batch["user_id"])
                    rows, labels = draw_impressions(
                        users, items[known], clicked, catalogue, negatives, rng
                    )
                    writer.write_table(
                        _to_impressions(batch, clicks, rows, labels, names, split)
                    )
                    clicks += len(batch)
                    left_out += np.count_nonzero(~known)
    print(
        f"{len(ids)} items, {clicks} clicks, {clicks * negatives} negatives; left out: "
        f"{left_out} reviews of {len(reviewed) - len(ids)} items without metadata "
        f"-> {output_dir}"
    )


FLAGS = flags.FLAGS


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string(
        "meta", None, "The items' metadata, .jsonl or .jsonl.gz.", required=True
    )
    flags.DEFINE_string("output_dir", None, "The folder SHOP to write.", required=True)
    flags.DEFINE_string("train", None, "The reviews of the training split, CSV.")
    flags.DEFINE_string("validation", None, "The reviews of the validation split, CSV.")
    flags.DEFINE_string("test", None, "The reviews of the test split, CSV.")
    flags.DEFINE_string(
        "reviews", None, "All reviews, CSV, instead of those of the three splits."
    )
    flags.DEFINE_integer(
        "negatives", 1, "The number of negatives for each review.", lower_bound=0
    )
    flags.DEFINE_integer("seed", 0, "The seed of the negatives.", lower_bound=0)


def main(words):
    """Runs the command line."""
    del words
    splits = {name: FLAGS[name].value for name in SPLITS if FLAGS[name].value}
    if FLAGS.reviews and not splits:
        splits = {None: FLAGS.reviews}
    elif FLAGS.reviews or len(splits) < len(SPLITS):
        raise InputError(
            "give --train, --validation and --test, or --reviews alone. Received: "
            f"--reviews={FLAGS.reviews}, {', '.join(splits) or 'no split'}"
        )
    import_amazon_reviews(
        FLAGS.meta,
        splits,
        FLAGS.output_dir,
        FLAGS.negatives,
        FLAGS.seed,
    )
    say_preparation(FLAGS.output_dir)


if __name__ == "__main__":
    run(main, define_flags)
