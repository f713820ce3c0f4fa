"""Batches for training: parse, index, deduplicate the batch's images, gather maps."""

import contextlib
import json

import tensorflow as tf

from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.schema import to_padded
from hccm_tf.errors import InputError
from hccm_tf.files import join, open_file, require_scheme

SHUFFLE_BUFFER = 20_000
SHARDS_AT_ONCE = 16
FILES_A_PART = 8  # from which on a file more or less does not matter
EPOCHS = 1_000_003  # more than a run has
SIDES = ("candidate", "history")
# Of a damaged record, of a file that ends early, and of one that is not there.
DAMAGES = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
)


def _shard_lengths(data_dir, split):
    path = join(data_dir, "dataset_info.json")
    try:
        with open_file(path) as handle:
            splits = json.load(handle)["splits"]
        lengths = {entry["name"]: entry["shardLengths"] for entry in splits}[split]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no TFRecords of split {split} ({error}); make them with "
            "python -m tfrecords_tools.build_examples"
        ) from error
    return [int(length) for length in lengths]


def data_files(data_dir, split):
    """Paths of a split's TFRecord shards, in order, as `dataset_info.json` has them."""
    count = len(_shard_lengths(data_dir, split))
    return [
        join(data_dir, f"impressions-{split}.tfrecord-{shard:05d}-of-{count:05d}")
        for shard in range(count)
    ]


def num_examples(data_dir, split):
    """Number of a split's impressions, from `dataset_info.json`."""
    return sum(_shard_lengths(data_dir, split))


@contextlib.contextmanager
def report_damage(data_dir):
    """Turns TensorFlow's error of a damaged record into one that says what to do."""
    try:
        yield
    except DAMAGES as error:
        raise InputError(
            f"{data_dir}: a TFRecord is missing, truncated or damaged; find it with "
            "python -m tfrecords_tools.validate, and build the examples again"
        ) from error


def parse_spec(schema):
    """The spec with which `tf.io.parse_example` reads the examples."""
    spec = {
        "label": tf.io.FixedLenFeature([], tf.int64),
        "user_key": tf.io.FixedLenFeature([], tf.int64),
        "image": tf.io.FixedLenFeature([], tf.int64),
        HISTORY_IMAGE: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
    }
    for feature in schema.scalars:
        spec[feature.name] = tf.io.FixedLenFeature([], tf.as_dtype(feature.dtype))
    for feature in schema.sequences:
        spec[feature.name] = tf.io.RaggedFeature(
            tf.as_dtype(feature.dtype), row_splits_dtype=tf.int64
        )
    return spec


def padded_size(count):
    """`count` rounded up so that at most 8 sizes occur per power of two."""
    octaves = tf.constant([2**k for k in range(4, 40)], tf.int64)
    step = tf.maximum(octaves[tf.searchsorted(octaves, count[None])[0]] // 16, 1)
    return (count + step - 1) // step * step


def deduplicate(candidate_rows, candidate_category, history_rows, history_category):
    """Numbers a batch's images so that each (image, category) occurs once.

    Args:
        candidate_rows: int64 `[B]`, store rows of the candidates' images, 0 = no image.
        candidate_category: int32 `[B]`, category indices.
        history_rows: int64 `[B, T]`.
        history_category: int32 `[B, T]`.

    Returns:
        `(rows, category, candidate_image, history_image)`: int64 `[U]` store rows and
        int32 `[U]` categories, first row 0 (no image) and padded with it; int32
        `[B]` and `[B, T]` row numbers into them.
    """
    history_shape = tf.shape(history_rows)
    rows = tf.concat([[0], candidate_rows, tf.reshape(history_rows, [-1])], axis=0)
    category = tf.concat(
        [[0], candidate_category, tf.reshape(history_category, [-1])], axis=0
    )
    # One number for the pair; an image that is missing has no category either.
    base = tf.cast(tf.reduce_max(category), tf.int64) + 1
    pairs = tf.where(rows > 0, rows * base + tf.cast(category, tf.int64), 0)
    unique, index = tf.unique(pairs)
    padding = padded_size(tf.size(unique, tf.int64)) - tf.size(unique, tf.int64)
    unique = tf.pad(unique, [[0, padding]])
    size = tf.size(candidate_rows)
    return (
        unique // base,
        tf.cast(unique % base, tf.int32),
        index[1 : size + 1],
        tf.reshape(index[size + 1 :], history_shape),
    )


def image_inputs(schema, raw, inputs, feature_maps, sides=SIDES, tell_category=None):
    """The image tensors of a batch; see `deduplicate`.

    Args:
        schema: `hccm_tf.data.schema.Schema`.
        raw: dict of the batch's raw columns.
        inputs: dict of `schema.index_all`.
        feature_maps: `FeatureMapStore` or `ImageFolder`.
        sides: of `SIDES`, whose images the model takes; others are not read.
        tell_category: as of `make_dataset`.
    """
    # Row numbers and categories of no slot at all.
    item = tf.zeros([0], tf.int64), tf.zeros([0], tf.int32)
    history = tf.zeros([0, 0], tf.int64), tf.zeros([0, 0], tf.int32)
    if "candidate" in sides:
        rows = feature_maps.find(raw["image"])
        item = rows, inputs.get("category", tf.ones_like(rows, tf.int32))
    if "history" in sides:
        keys = schema.truncate(raw[HISTORY_IMAGE])
        rows = to_padded(keys.with_flat_values(feature_maps.find(keys.flat_values)))
        category = inputs.get("history_category", tf.ones_like(rows, tf.int32))
        history = rows, category
    rows, category, candidate_image, history_image = deduplicate(*item, *history)
    if tell_category is not None:
        category = tell_category(rows, category)
    numbers = {"candidate_image": candidate_image, "history_image": history_image}
    return {
        "image_map": feature_maps.gather(rows),
        "image_category": category,
        **{f"{side}_image": numbers[f"{side}_image"] for side in sides},
    }


def group_by_image(dataset, batch_size, seed):
    """Batches in which impressions of the same image stand together.

    A window of `SHUFFLE_BUFFER` records is sorted by a hash of the candidate's image,
    another one for each window, and cut into batches: a batch then has few images, and
    another choice of them with each seed.

    Args:
        dataset: of serialized examples, shuffled.
        batch_size: int.
        seed: int, or int64 tensor.

    Returns:
        `tf.data.Dataset` of batches of serialized examples, as many as without it.
    """
    spec = {"image": tf.io.FixedLenFeature([], tf.int64)}
    window = max(SHUFFLE_BUFFER // batch_size, 1) * batch_size

    def to_batches(records, salt):
        # Multiplied by an odd number, distinct keys stay distinct.
        keys = tf.io.parse_example(records, spec)["image"] * (2 * salt + 1)
        records = tf.gather(records, tf.argsort(keys, stable=True))
        return tf.data.Dataset.from_tensor_slices(records).batch(batch_size)

    salts = tf.data.Dataset.random(seed, rerandomize_each_iteration=False)
    windows = tf.data.Dataset.zip(dataset.batch(window), salts)
    return windows.flat_map(to_batches)


def make_dataset(
    data_dir,
    split,
    schema,
    batch_size,
    feature_maps=None,
    shuffle_seed=None,
    sides=SIDES,
    group_by_item=False,
    tell_category=None,
    part=(0, 1),
    skip=0,
    repeat=False,
):
    """Batches of one split.

    Args:
        data_dir: data folder of `tfrecords_tools.build_examples`.
        split: `"train"`, `"validation"` or `"test"`.
        schema: `hccm_tf.data.schema.Schema`.
        batch_size: int.
        feature_maps: `FeatureMapStore` or `ImageFolder`, or `None` for a model without
            images.
        shuffle_seed: int or int64 tensor, which determines the order; see
            `epoch_seed`. `None` keeps that of the data.
        sides: of `SIDES`, whose images the model takes.
        group_by_item: whether shuffled impressions of the same item come in the same
            batch, see `group_by_image`.
        tell_category: function of `shuffled_categories`, `None` to tell the truth.
        part: `(index, count)`, the first an int or int64 tensor: which of `count`
            disjoint parts, for several readers. In order, every `count`-th batch;
            shuffled, some of the files or, if these cannot be dealt out about evenly,
            every `count`-th record.
        skip: number of batches at the beginning to leave out, without reading their
            images.
        repeat: whether the data begin again, without end, before `skip` counts.

    Returns:
        `tf.data.Dataset` of `(inputs, label, user)`: the dict that a model takes
        (features `[B]`, histories `[B, T]` and the images of `image_inputs`), float32
        `[B, 1]` and the user's int64 key `[B]`. All in graph operations.
    """
    require_scheme(data_dir)
    files = data_files(data_dir, split)
    spec = parse_spec(schema)
    index, count = part
    num_files = len(files)

    def to_batch(records):
        raw = tf.io.parse_example(records, spec)
        inputs = schema.index_all(raw)
        if feature_maps is not None:
            images = image_inputs(
                schema, raw, inputs, feature_maps, sides, tell_category
            )
            inputs.update(images)
        label = tf.cast(raw["label"], tf.float32)[:, None]
        return inputs, label, raw["user_key"]

    if shuffle_seed is None:
        dataset = tf.data.TFRecordDataset(files).batch(batch_size)
        dataset = dataset.shard(count, index)
    else:
        seed = tf.cast(shuffle_seed, tf.int64)
        files = tf.random.experimental.stateless_shuffle(files, tf.stack([seed, 0]))
        # A shard holds the rows of some users only: a batch mixes several shards.
        by_file = num_files % count == 0 or num_files >= FILES_A_PART * count
        dataset = tf.data.Dataset.from_tensor_slices(
            files[index::count] if by_file else files
        )
        dataset = dataset.interleave(tf.data.TFRecordDataset, SHARDS_AT_ONCE)
        if not by_file:
            dataset = dataset.shard(count, index)
        dataset = dataset.shuffle(SHUFFLE_BUFFER, shuffle_seed, False)
        if group_by_item:
            dataset = group_by_image(dataset, batch_size, shuffle_seed)
        else:
            dataset = dataset.batch(batch_size)
    if repeat:
        dataset = dataset.repeat()
    dataset = dataset.skip(skip)
    if count == 1 and not repeat:
        # A file that ends early is an error.
        batches = -(-num_examples(data_dir, split) // batch_size)
        cardinality = tf.data.experimental.assert_cardinality(max(batches - skip, 0))
        dataset = dataset.apply(cardinality)
    # Nothing here is left to tune, and the end of an epoch would wait for seconds until
    # the tuner wakes up.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.map(to_batch, num_parallel_calls=2).prefetch(2)
    return dataset.with_options(options)


def epoch_seed(seed, epoch):
    """A seed for each epoch: the order of a run's epoch does not depend on the past.

    Args:
        seed: int, of the run.
        epoch: int or int64 tensor.

    Returns:
        int64 like `epoch`.
    """
    return seed * EPOCHS + epoch
