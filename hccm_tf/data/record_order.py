"""The order in which a split's records are read, and the batches that they make."""

import tensorflow as tf

SHUFFLE_BUFFER = 20_000
SHARDS_AT_ONCE = 16
FILES_A_PART = 8  # from which on a file more or less does not matter
PARSED_AT_ONCE = 256
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
        batch_size: number of records.
        part: `(index, count)`: of these, every `count`-th batch.

    Returns:
        `tf.data.Dataset` of string tensors `[B]`.
    """
    index, count = part
    return tf.data.TFRecordDataset(files).batch(batch_size).shard(count, index)


def shuffled(files, seed, part=(0, 1)):
    """Shuffled records.

    The files come in a random order, `SHARDS_AT_ONCE` of them at once, and their
    records go through a buffer of `SHUFFLE_BUFFER`.

    Args:
        files: list of paths.
        seed: int or int64 tensor, which determines the order.
        part: `(index, count)`, the first an int or int64 tensor: some of the files or,
            if these cannot be dealt out about evenly, every `count`-th record.

    Returns:
        `tf.data.Dataset` of string scalars.
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
    return dataset.shuffle(SHUFFLE_BUFFER, seed, False)


def grouped_impressions(dataset, batch_size, seed):
    """Batches of single impressions, those of the same image together.

    A window of `SHUFFLE_BUFFER` impressions, shuffled again because a request's come
    one after the other, is sorted by a hash of the candidate's image, another one for
    each window, and cut into batches: a batch then has few images, and another choice
    of them with each seed. Those without an image are spread: a batch of them alone
    would have no image to learn from.

    Args:
        dataset: of serialized requests, shuffled.
        batch_size: number of impressions.
        seed: int, or int64 tensor.

    Returns:
        `tf.data.Dataset` of `(records, candidate)`, `[B]` each: requests, and which of
        its candidates, int64, is meant.
    """
    spec = {"image": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)}
    window = max(SHUFFLE_BUFFER // batch_size, 1) * batch_size

    def to_impressions(records):
        image = tf.io.parse_example(records, spec)["image"]
        place = image.value_rowids()
        candidate = tf.range(tf.size(place, tf.int64)) - tf.gather(
            image.row_starts(), place
        )
        impressions = tf.gather(records, place), candidate, image.flat_values
        return tf.data.Dataset.from_tensor_slices(impressions)

    def to_batches(impressions, salt):
        *impressions, image = impressions
        anywhere = tf.random.stateless_uniform(
            tf.shape(image), [salt, 0], None, None, tf.int64
        )
        # Multiplied by an odd number, distinct keys stay distinct.
        place = tf.where(image == 0, anywhere, image * (2 * salt + 1))
        order = tf.argsort(place, stable=True)
        impressions = tuple(tf.gather(values, order) for values in impressions)
        return tf.data.Dataset.from_tensor_slices(impressions).batch(batch_size)

    dataset = dataset.batch(PARSED_AT_ONCE).flat_map(to_impressions)
    dataset = dataset.shuffle(SHUFFLE_BUFFER, seed, False)
    salts = tf.data.Dataset.random(seed, rerandomize_each_iteration=False)
    windows = tf.data.Dataset.zip(dataset.batch(window), salts)
    return windows.flat_map(to_batches)
