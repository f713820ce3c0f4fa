"""What a smaller representation table costs in AUC, of a run of `train_main.py`.

    python benchmarks/serving_auc.py --run_dir=quickstart/runs/hccm
        --data_dir=quickstart/data --feature_maps=quickstart/maps --json=FILE

The test split's AUC by the exports' own signature, for each form of the table.
"""

import pathlib

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import app, flags
from sklearn.metrics import roc_auc_score
from timing import report

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import Schema
from hccm_tf.serving.export import encode_images_of
from hccm_tf.serving.representations import REPRESENTATION_DTYPES
from hccm_tf.serving.signatures import Signatures

BATCH_SIZE = 512
FLAGS = flags.FLAGS


def main(argv):
    del argv
    model = keras.models.load_model(pathlib.Path(FLAGS.run_dir) / "model.keras")
    schema = Schema.load(FLAGS.data_dir)
    store = FeatureMapStore.open(FLAGS.feature_maps)
    records = tf.data.TFRecordDataset(DataFolder(FLAGS.data_dir).files("test"))
    records = records.batch(BATCH_SIZE)
    label = {"label": tf.io.FixedLenFeature([], tf.int64)}
    labels = [tf.io.parse_example(batch, label)["label"] for batch in records]
    labels = np.concatenate(labels)
    columns = {}
    for dtype in REPRESENTATION_DTYPES:
        table = encode_images_of(model, schema, FLAGS.data_dir, store, dtype, {})
        signatures = Signatures(schema, {"ranker": model.get_layer("ranker")}, table)
        ask = tf.function(lambda batch, s=signatures: s.serve_examples(batch)["ctr"])
        ctr = np.concatenate([ask(batch) for batch in records])
        columns[dtype] = ctr
    frame = pd.DataFrame(columns)
    auc = frame.apply(lambda ctr: roc_auc_score(labels, ctr))
    table = pd.DataFrame(
        {
            "AUC": auc,
            "loss, 1e-6": 1e6 * (auc.float32 - auc),
            "change of ctr, 1e-6": 1e6 * frame.sub(frame.float32, axis=0).abs().mean(),
        }
    )
    report({"test split, by form of the table": table}, {}, FLAGS.json)


if __name__ == "__main__":
    for name in ("run_dir", "data_dir", "feature_maps"):
        flags.DEFINE_string(name, None, "As of train_main.py.", required=True)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
