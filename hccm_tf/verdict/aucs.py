"""AUCs of one run with their 95% intervals: of a split, and of what is new in it."""

import numpy as np
import tensorflow as tf

from hccm_tf.comparison.statistics import bootstrap_aucs, gain_test
from hccm_tf.verdict.gains import REPLICATES, auc

IDS = {"item_id": "items", "user_id": "users"}
# Of more, a bootstrap would take longer than the export.
MOST_RESAMPLED = 1_000_000


def auc_with_interval(rows):
    """The AUC of `ctr`, its interval by a bootstrap over users, and of how many rows.

    Args:
        rows: data frame `user_key, label, weight, ctr`.

    Returns:
        dict `auc`, `interval`, `impressions`; NaN and `None` where one label is
        missing, no interval of over `MOST_RESAMPLED` rows.
    """
    result = {"auc": np.nan, "interval": None, "impressions": len(rows)}
    if rows.label[rows.weight > 0].nunique() < 2:
        return result
    value = auc(rows, rows.ctr)
    if len(rows) > MOST_RESAMPLED:
        return {**result, "auc": value}
    resampled = bootstrap_aucs(
        rows.label.to_numpy(),
        rows.ctr.to_numpy()[None, None],
        rows.user_key.to_numpy(),
        REPLICATES,
        weights=rows.weight.to_numpy(),
    )
    interval, _ = gain_test([value], resampled[:, 0])
    # Of few rows, a normal distribution goes beyond what an AUC can be.
    interval = np.clip(interval, 0, 1).tolist()
    return {**result, "auc": value, "interval": interval}


def aucs_of(schema, validation, test):
    """AUCs of splits and, of the test split, of known and new items and users.

    New is what the model's vocabularies lack; of ids without one it is not known.

    Args:
        schema: `Schema` of the model.
        validation: data frame of predictions; `None` leaves it out.
        test: likewise, with the log's ids, as far as they are known.

    Returns:
        dict from what the impressions are to `auc_with_interval`.
    """
    parts = {"validation": validation, "test": test}
    if test is not None:
        for name, what in IDS.items():
            if name in test and name in schema and schema[name].has_vocabulary:
                values = tf.constant(test[name].to_numpy())
                keys, checks = schema.known(name)
                is_new = schema[name].is_odd(values, keys, checks).numpy()
                parts[f"test, known {what}"] = test[~is_new]
                parts[f"test, new {what}"] = test[is_new]
    return {
        name: auc_with_interval(rows)
        for name, rows in parts.items()
        if rows is not None and len(rows)
    }
