"""What a smaller representation table costs in AUC, of a run of `train_main.py`.

    python benchmarks/serving_auc.py --run_dir=quickstart/runs/hccm --json=FILE

The AUC of the test split of the run's data, by the exports' own signature, for each
form of the table.
"""

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import app, flags
from sklearn.metrics import roc_auc_score
from timing import report

from hccm_tf.data.folder import DataFolder
from hccm_tf.runs import TrainedModel
from hccm_tf.serving.export import encode_images_of
from hccm_tf.serving.representations import REPRESENTATION_DTYPES
from hccm_tf.serving.signatures import Signatures
from hccm_tf.training.fit import open_batches

BATCH_SIZE = 512
FLAGS = flags.FLAGS


def main(argv):
    del argv
    trained = TrainedModel.load(FLAGS.run_dir)
    data_dir = trained.configuration.data_dir
    images = open_batches(trained, data_dir).images
    ranker = trained.definition.ranker_of(trained.keras_model)
    records = tf.data.TFRecordDataset(DataFolder(data_dir).files("test"))
    records = records.batch(BATCH_SIZE)
    label = {"label": tf.io.FixedLenFeature([], tf.int64)}
    labels = [tf.io.parse_example(batch, label)["label"] for batch in records]
    labels = np.concatenate(labels)
    columns = {}
    for dtype in REPRESENTATION_DTYPES:
        table = encode_images_of(trained, data_dir, images, dtype)
        signatures = Signatures(trained.definition, {"ranker": ranker}, table)
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
    flags.DEFINE_string("run_dir", None, "RUN of train_main.py.", required=True)
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
