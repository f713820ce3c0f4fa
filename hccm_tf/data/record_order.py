"""The order in which a split's records are read, and the batches that they make."""

import tensorflow as tf

SHUFFLE_BUFFER = 20_000
SHARDS_AT_ONCE = 16
FILES_A_PART = 8  # from which on a file more or less does not matter
EPOCHS = 1_000_003  # more than a run has


def epoch_seed(seed, epoch):
    """A seed for each epoch: the order of a run's epoch does not depend on the past.

    Args:
        seed: int, of the run.
        epoch: int or int64 tensor.

    Returns:
        int64 like `epoch`.
    """
    return seed * EPOCHS + epoch


def in_order(files, batch_size, part=(0, 1)):
    """Batches of records in the order of the files.

    Args:
        files: list of paths.
        batch_size: int.
        part: `(index, count)`: of these, every `count`-th batch.

    Returns:
        `tf.data.Dataset` of string tensors `[B]`.
    """
    index, count = part
    return tf.data.TFRecordDataset(files).batch(batch_size).shard(count, index)


def shuffled(files, batch_size, seed, part=(0, 1), group_by_item=False):
    """Batches of shuffled records.

    Args:
        files: list of paths.
        batch_size: int.
        seed: int or int64 tensor, which determines the order.
        part: `(index, count)`, the first an int or int64 tensor: some of the files or,
            if these cannot be dealt out about evenly, every `count`-th record.
        group_by_item: see `group_by_image`.

    Returns:
        `tf.data.Dataset` of string tensors `[B]`.
    """
    index, count = part
    num_files = len(files)
    key = tf.stack([tf.cast(seed, tf.int64), 0])
    files = tf.random.experimental.stateless_shuffle(files, key)
    # A shard holds the rows of some users only: a batch mixes several shards.
    by_file = num_files % count == 0 or num_files >= FILES_A_PART * count
    dataset = tf.data.Dataset.from_tensor_slices(
        files[index::count] if by_file else files
    )
    dataset = dataset.interleave(tf.data.TFRecordDataset, SHARDS_AT_ONCE)
    if not by_file:
        dataset = dataset.shard(count, index)
    dataset = dataset.shuffle(SHUFFLE_BUFFER, seed, False)
    if group_by_item:
        return group_by_image(dataset, batch_size, seed)
    return dataset.batch(batch_size)


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
