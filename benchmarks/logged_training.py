"""`train_main.py`, which also notes each training step that is taken.

    NOTES=FILE python benchmarks/logged_training.py --flagfile=...

FILE gets a line for each epoch that begins, or begins again, and from all processes of
a cluster one for each step that is taken, with a number that tells its batch from
others and is the same when the batch is trained again.
"""

import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from absl import app  # noqa: E402

import train_main  # noqa: E402

_train_step = keras.Model.train_step
_on_epoch_begin = keras.callbacks.CallbackList.on_epoch_begin


def _logged_train_step(model, data):
    logs = _train_step(model, data)
    items = tf.reshape(tf.cast(data[0]["item_id"], tf.int64), [-1])
    number = tf.reduce_sum(items * tf.range(1, tf.size(items, tf.int64) + 1))
    # Only after an update, and so after all workers in step have begun the epoch.
    updated = tf.identity(model.trainable_variables[-1].value)
    # By an operation: the chief of parameter servers traces this for its workers.
    with tf.control_dependencies([updated]):
        tf.print(number, output_stream=f"file://{os.environ['NOTES']}")
    return logs


def _logged_epoch_begin(callbacks, epoch, logs=None):
    task = json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {"index": 0})
    if task["index"] == 0:
        with open(os.environ["NOTES"], "a") as file:
            file.write(f"epoch {epoch}\n")
    _on_epoch_begin(callbacks, epoch, logs)


if __name__ == "__main__":
    keras.Model.train_step = _logged_train_step
    keras.callbacks.CallbackList.on_epoch_begin = _logged_epoch_begin
    app.run(train_main.main, flags_parser=train_main.parse_flags)
