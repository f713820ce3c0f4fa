"""A third of the training data, with which a search begins."""

import json

import numpy as np
import tensorflow as tf

from hccm_tf.atomic import new_folder
from hccm_tf.data.folder import NEEDED, DataFolder
from hccm_tf.data.local_copy import is_needed
from hccm_tf.errors import InputError
from hccm_tf.files import join, read_json, require_scheme

PARTS = 3
AT_ONCE = 4_096


def find_third(data_dir, folder):
    """The data with the training requests of a third of the users, made if it must be.

    A hash chooses the users, so that each one's requests stay together. Validation and
    test are whole.

    Args:
        data_dir: data folder, local or one that TensorFlow reads.
        folder: `pathlib.Path` in which the copy is, by the checksum of `data_dir`.

    Returns:
        `pathlib.Path`.

    Raises:
        InputError: if a record is damaged, or the third is empty.
    """
    source = DataFolder(data_dir)
    path = folder / f"third-{source.checksum():08x}"
    if not path.exists():
        _write(source, path)
        print(f"training data of a third of the users -> {path}", flush=True)
    return path


def _write(source, path):
    require_scheme(source.path)
    with new_folder(path) as folder:
        target, shards = DataFolder(folder), source.files("train")
        _copy_all_but(shards, str(source.path), folder)
        lengths, size, impressions = [], 0, 0
        for number, shard in enumerate(shards):
            name = target.shard_file("train", number, len(shards))
            with source.report_damage(), tf.io.TFRecordWriter(name) as writer:
                lengths.append(0)
                for records, candidates in _chosen(shard):
                    for record in records:
                        writer.write(record)
                        size += len(record)
                    lengths[-1] += len(records)
                    impressions += int(candidates.sum())
        if not impressions:
            raise InputError(
                f"{source.path}: too few users to search with a third of them; set "
                "--search_trials=0"
            )
        _write_counts(target, lengths, size, impressions)


def _copy_all_but(shards, data_dir, folder):
    for at, _, names in tf.io.gfile.walk(data_dir):
        inner = at[len(data_dir) :].strip("/")
        for name in names:
            relative, file = join(inner, name), join(at, name)
            if is_needed(relative, NEEDED) and file not in shards:
                (folder / relative).parent.mkdir(exist_ok=True)
                tf.io.gfile.copy(file, str(folder / relative))


def _chosen(shard):
    """The records of a shard's chosen users, and how many candidates each has."""
    spec = {
        "user_key": tf.io.FixedLenFeature([], tf.int64),
        "label": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
    }

    def parse(records):
        parsed = tf.io.parse_example(records, spec)
        return records, parsed["user_key"], parsed["label"].row_lengths()

    dataset = tf.data.TFRecordDataset(shard).batch(AT_ONCE).map(parse)
    for records, users, candidates in dataset.as_numpy_iterator():
        # Fibonacci hashing: neighbouring keys are not of the same third.
        mixed = users.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        chosen = (mixed >> np.uint64(33)) % np.uint64(PARTS) == 0
        yield records[chosen], candidates[chosen]


def _write_counts(target, lengths, size, impressions):
    info, summary = read_json(target.info_file), read_json(target.summary_file)
    train = next(split for split in info["splits"] if split["name"] == "train")
    train |= {"shardLengths": list(map(str, lengths)), "numBytes": str(size)}
    summary["splits"]["train"], summary["requests"]["train"] = impressions, sum(lengths)
    for file, content in ((target.info_file, info), (target.summary_file, summary)):
        with open(file, "w") as handle:
            json.dump(content, handle, indent=2)
