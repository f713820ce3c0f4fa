r"""Reads a fashion dataset of DVBPR (Kang et al., ICDM 2017) into a shop's tables.

    python -m tfrecords_tools.import_dvbpr --input=AmazonFashion6ImgPartitioned.npy \
        --output_dir=SHOP --allow_pickle

AmazonFashion, AmazonWomen, AmazonMen and Tradesy come as one `.npy` of six objects:
the users' clicks for training, validation and test, the items with their JPEGs, the
number of users and the number of items. SHOP gets `items.parquet`,
`impressions.parquet` and `images/`.

- The dataset has no times: `timestamp` is the click's place in its user's sequence,
  training clicks first, then validation, then test.
- It has no impressions: each click gets --negatives items that its user never clicked,
  with the click's timestamp and split. Nothing else of its user has that timestamp, so
  they are one request.
- `category` is the index of the one-hot vector `c` or, where that is missing, the last
  name of the first path in `categories`, or empty.
- JPEGs are written as they are; whether they can be decoded turns out when feature maps
  are extracted.

An `.npy` of objects is a pickle. Loading one RUNS THE CODE in it, so it needs
--allow_pickle, and the whole file is in memory at once (2 to 6 GB).
"""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags

from hccm_tf.atomic import new_folder
from hccm_tf.commands import run
from hccm_tf.errors import InputError
from hccm_tf.progress import advance, progress
from tfrecords_tools.importers.malformed import malformed_named
from tfrecords_tools.importers.negatives import (
    draw_impressions,
    hash_ids,
    user_item_keys,
)
from tfrecords_tools.next_steps import say_preparation

OBJECTS = (
    ("user_train", dict),
    ("user_validation", dict),
    ("user_test", dict),
    ("Item", dict),
    ("usernum", (int, np.integer)),
    ("itemnum", (int, np.integer)),
)
SPLITS = ("train", "validation", "test")


def load_dataset(path, allow_pickle):
    """Loads the six objects of a file.

    Args:
        path: the `.npy` file.
        allow_pickle: whether the file may be loaded at all.

    Returns:
        `(splits, items)`: dict split → dict user → list of clicks, and dict item →
        dict with bytes keys.

    Raises:
        InputError: if the file may not or cannot be loaded or is of another form.
    """
    path = pathlib.Path(path)
    *clicks, items, num_users, num_items = _load(path, allow_pickle)
    # Not a set of the numbers: there may be said to be any number of items.
    numbered = all(_is_index(number, num_items) for number in items)
    if not numbered or len(items) != num_items:
        raise InputError(
            f"{path}: Item: expected the keys 0 to itemnum - 1 = {num_items - 1}. "
            f"Received: {len(items)} keys"
        )
    strange = [number for number, item in items.items() if not isinstance(item, dict)]
    if strange:
        raise InputError(f"{path}: Item: {strange[0]} is not a dict")
    splits = dict(zip(SPLITS, clicks, strict=True))
    for split, users in splits.items():
        strange = [user for user in users if not _is_index(user, num_users)]
        if strange:
            raise InputError(
                f"{path}: user_{split}: expected users 0 to usernum - 1 = "
                f"{num_users - 1}. Received: {strange[0]!r}"
            )
    return splits, items


def _load(path, allow_pickle):
    """The six objects, each of its type."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not allow_pickle:
        raise InputError(
            f"allow_pickle: {path}, an .npy of objects, is a pickle, and to load it "
            "runs the code in it: allow that if you trust where it comes from"
        )
    try:
        data = np.load(path, allow_pickle=True, encoding="bytes")
    except Exception as error:  # what a pickle can raise is open-ended
        raise InputError(
            f"{path}: cannot be loaded, {type(error).__name__}: {error}"
        ) from error
    if getattr(data, "shape", None) != (len(OBJECTS),):
        raise InputError(
            f"{path}: expected an array of {len(OBJECTS)} objects: "
            f"{', '.join(name for name, _ in OBJECTS)}. Received: "
            f"{type(data).__name__} of shape {getattr(data, 'shape', None)}"
        )
    for (name, kind), value in zip(OBJECTS, data, strict=True):
        if not isinstance(value, kind):
            expected = "dict" if kind is dict else "int"
            raise InputError(
                f"{path}: {name}: expected {expected}. Received: {type(value).__name__}"
            )
    return data


def _is_index(value, size):
    return isinstance(value, (int, np.integer)) and 0 <= value < size


def read_clicks(path, splits, num_items):
    """The clicks as columns, by user and in the order of each user's sequence.

    Args:
        path: for errors.
        splits: dict split → dict user → list of clicks.
        num_items: int.

    Returns:
        dict of `user_id`, `item_id`, `timestamp` (int64) and `split` (string).

    Raises:
        InputError: if a click names no item.
    """
    rows = []
    for user in sorted(set().union(*splits.values())):
        place = 0
        for split, clicks in splits.items():
            for click in clicks.get(user, ()):
                item = click.get(b"productid") if isinstance(click, dict) else None
                if not _is_index(item, num_items):
                    raise InputError(
                        f"{path}: user_{split}, user {user}: expected a dict with "
                        f"b'productid' from 0 to {num_items - 1}. Received: {click!r}"
                    )
                rows.append((user, item, place, split))
                place += 1
    if not rows:
        raise InputError(f"{path}: no user has a click")
    user_id, item_id, timestamp, split = zip(*rows, strict=True)
    return {
        "user_id": np.array(user_id, np.int64),
        "item_id": np.array(item_id, np.int64),
        "timestamp": np.array(timestamp, np.int64),
        "split": np.array(split),
    }


def _category(item):
    one_hot = item.get(b"c")
    if one_hot is not None and np.any(one_hot):
        return str(np.argmax(one_hot))
    paths = item.get(b"categories")
    path = paths[0] if isinstance(paths, list) and paths else None
    name = path[-1] if isinstance(path, list) and path else b""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _write_items(folder, items):
    """Writes images and catalogue; returns the number of items with an image."""
    (folder / "images").mkdir()
    images, categories = [], []
    for number in range(len(items)):
        jpeg = items[number].get(b"imgs")
        has_image = isinstance(jpeg, bytes) and len(jpeg) > 0
        images.append(f"{number}.jpg" if has_image else "")
        if has_image:
            (folder / "images" / images[-1]).write_bytes(jpeg)
        categories.append(_category(items[number]))
        advance(1)
    table = {
        "item_id": np.arange(len(items)),
        "image": images,
        "category": categories,
    }
    pq.write_table(pa.table(table), folder / "items.parquet")
    return sum(map(bool, images))


def import_dvbpr(path, output_dir, allow_pickle, negatives=1, seed=0):
    """Writes the shop of a DVBPR dataset.

    Args:
        path: the `.npy` file.
        output_dir: folder to write.
        allow_pickle: whether the file, which can run code, may be loaded.
        negatives: number of negatives for each click.
        seed: of the negatives.

    Raises:
        InputError: if the file may not be loaded or is of another form.
    """
    with new_folder(output_dir) as folder, malformed_named(path):
        splits, items = load_dataset(path, allow_pickle)
        clicks = read_clicks(path, splits, len(items))
        users, catalogue = hash_ids(clicks["user_id"]), hash_ids(np.arange(len(items)))
        item_id, label = draw_impressions(
            users,
            clicks["item_id"],
            np.sort(user_item_keys(users, catalogue[clicks["item_id"]])),
            catalogue,
            negatives,
            np.random.default_rng(seed),
        )
        repeated = {name: np.repeat(clicks[name], 1 + negatives) for name in clicks}
        impressions = pa.table({**repeated, "item_id": item_id, "label": label})
        pq.write_table(impressions, folder / "impressions.parquet")
        with progress("writing", len(items), "photo"):
            num_images = _write_items(folder, items)
    print(
        f"{len(items)} items, {num_images} with an image; {len(users)} clicks of "
        f"{len(np.unique(users))} users, {np.count_nonzero(label == 0)} negatives "
        f"-> {output_dir}"
    )


FLAGS = flags.FLAGS


def define_flags():
    """Defines what the command takes."""
    flags.DEFINE_string("input", None, "The data set's .npy file.", required=True)
    flags.DEFINE_string("output_dir", None, "The folder SHOP to write.", required=True)
    flags.DEFINE_bool(
        "allow_pickle", False, "Whether to load the file, which can run code."
    )
    flags.DEFINE_integer(
        "negatives", 1, "The number of negatives for each click.", lower_bound=0
    )
    flags.DEFINE_integer("seed", 0, "The seed of the negatives.", lower_bound=0)


def main(words):
    """Runs the command line."""
    del words
    import_dvbpr(
        FLAGS.input,
        FLAGS.output_dir,
        FLAGS.allow_pickle,
        FLAGS.negatives,
        FLAGS.seed,
    )
    say_preparation(
        FLAGS.output_dir, f"--image_dir={pathlib.Path(FLAGS.output_dir, 'images')}"
    )


if __name__ == "__main__":
    run(main, define_flags)
