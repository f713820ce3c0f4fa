"""What a split's impressions are, in words for people: how many clicked, and when."""

import datetime

import tensorflow as tf

BATCH_SIZE = 4_096


def split_facts(folder, split):
    """Counts of a split, in one pass over its labels and times.

    Args:
        folder: `DataFolder`.
        split: its name.

    Returns:
        dict: `click_rate`, the share of those that the data hold; and
        `days`, of the first and of the last, `None` where the log has no times.
    """
    spec = {n: tf.io.RaggedFeature(tf.int64) for n in ("label", "timestamp")}
    batches = folder.records(split).batch(BATCH_SIZE)
    batches = batches.map(
        lambda records: tf.io.parse_example(records, spec), tf.data.AUTOTUNE
    )
    impressions = clicks = 0
    times = []
    with folder.report_damage():
        for columns in batches:
            labels, seconds = (columns[n].flat_values.numpy() for n in spec)
            impressions, clicks = impressions + len(labels), clicks + int(labels.sum())
            times += [seconds.min(), seconds.max()] if len(seconds) else []
    return {
        "click_rate": clicks / max(impressions, 1),
        "days": [_day(time) for time in (min(times), max(times))] if times else None,
    }


def _day(seconds):
    """The day of a time in UTC; other times than seconds since 1970 as they are."""
    try:
        return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return str(seconds)
