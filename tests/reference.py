"""Slow and plain forms of what the package does fast."""

import json

import numpy as np
import pandas as pd
import tensorflow as tf

# Pairs of strings with one 64-bit fingerprint.
COLLIDING = (
    ("PkXeK5CDa6e02il3rTACszefP2AlZ6yb", "U7LChnqHnIUzry4e1N9e(!)g;I2+OM3}"),
    ("uIFvER6rhHlw55B52gUdwSt2WDthJvAO", "gliyNtruDp2uQd0j0#G~Ju~-n7[TyPq="),
)


def histories(log, max_history):
    """For each row the rows of its user's clicks in earlier seconds, oldest first."""
    users, times = log.user_id.tolist(), log.timestamp.tolist()
    clicks = [row for row, label in enumerate(log.label.tolist()) if label == 1]
    result = []
    for user, time in zip(users, times, strict=True):
        before = [
            row for row in clicks if users[row] == user and times[row] < time // 1
        ]
        before.sort(key=lambda row: (times[row], row))
        result.append(before[max(0, len(before) - max_history) :])
    return result


def fingerprint(text):
    """The signed 64-bit fingerprint of one string."""
    digest = tf.fingerprint(tf.constant([text.encode()])).numpy()[0]
    return int.from_bytes(digest.tobytes(), "little", signed=True)


def vocabulary_index(train_values, value):
    """Place of `value` among the keys of the training values, counted from 2."""
    to_key = fingerprint if isinstance(value, str) else int
    keys = sorted({to_key(entry) for entry in set(train_values)})
    return keys.index(to_key(value)) + 2 if value in set(train_values) else 1


def read_maps(folder):
    """Image name → feature map, read without the package."""
    metadata = json.loads((folder / "feature_maps.json").read_text())
    maps = np.concatenate(
        [
            np.fromfile(file, "<f2").reshape(-1, *metadata["shape"])
            for file in sorted(folder.glob("feature_maps-*.f16"))
        ]
    )
    table = pd.read_parquet(folder / "images.parquet")
    return {image: maps[row] for image, row in zip(table.image, table.row, strict=True)}
