"""Data folders whose records and files are changed, and what is said of them."""

import json
import re

import pandas as pd
import tensorflow as tf

from hccm_tf.preparation.validation.validate import validate


def read(path):
    """The examples of a shard."""
    return [
        tf.train.Example.FromString(record)
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]


def write(path, examples):
    """Writes a shard."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example.SerializeToString(deterministic=True))


def edit_json(path, edit):
    """Changes a JSON file: `edit` gets its content."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def values(example, name):
    """The values of an example's feature, which can be changed."""
    feature = example.features.feature[name]
    return getattr(feature, feature.WhichOneof("kind")).value


def figures(lines):
    """The report's table as a data frame of str."""
    start = next(
        i for i, line in enumerate(lines) if re.match(r"impressions +\d", line)
    )
    columns = lines[start - 1].split()
    rows = {}
    for line in lines[start:]:
        name, *cells = re.split(r"\s{2,}", line)
        if len(cells) != len(columns):
            break
        rows[name] = cells
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def check_errors(data, messages):
    """Each error is told by one message, and there are no others."""
    _, errors = validate(data)
    for message in messages:
        (found,) = [error for error in errors if re.search(message, error)]
        assert "\n" not in found
        errors.remove(found)
    assert errors == []
