"""Which labels a split has: without both, its AUC is not defined."""

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

_LACKS = {
    (): "impression with a weight",
    (0,): "click",
    (1,): "impression without a click",
}


def missing_label(folder, split):
    """What a split lacks, a line; empty if it has clicks and others.

    It reads up to where both have come, which is soon where both are.

    Args:
        folder: `DataFolder`.
        split: its name.

    Raises:
        InputError: if there is no such split, or a record is damaged.
    """
    spec = {"label": tf.io.RaggedFeature(tf.int64)}
    if folder.weighted:
        spec["weight"] = tf.io.RaggedFeature(tf.float32)
    records = folder.records(split).batch(1024)
    found = set()
    with folder.report_damage():
        for batch in records.map(lambda each: tf.io.parse_example(each, spec)):
            labels = batch["label"].flat_values == 1
            if "weight" in batch:
                labels = labels[batch["weight"].flat_values > 0]
            found.update(labels.numpy().tolist())
            if len(found) > 1:
                break
    return what_lacks(split, found)


def what_lacks(split, found):
    """A line about what a split lacks; empty if it has both labels.

    Args:
        split: its name.
        found: the labels that it has.
    """
    if len(found) > 1:
        return ""
    return f"split {split} has no {_LACKS[tuple(found)]}: its AUC is not defined"
