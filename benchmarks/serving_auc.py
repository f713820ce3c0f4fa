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
from hccm_tf.serving.export import encode_images_of, item_table_of
from hccm_tf.serving.representations import REPRESENTATION_DTYPES
from hccm_tf.serving.signatures import Signatures
from hccm_tf.training.fit import open_batches

REQUESTS = 64  # of a batch
FLAGS = flags.FLAGS


def main(argv):
    del argv
    trained = TrainedModel.load(FLAGS.run_dir)
    data_dir = trained.configuration.data_dir
    images = open_batches(trained, data_dir).images
    forms = trained.definition.forms(trained.keras_model)
    records = tf.data.TFRecordDataset(DataFolder(data_dir).files("test"))
    records = records.batch(REQUESTS)
    spec = {"label": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)}
    labels = [tf.io.parse_example(batch, spec)["label"] for batch in records]
    masks = [tf.sequence_mask(label.row_lengths()) for label in labels]
    labels = np.concatenate([label.flat_values for label in labels])
    columns = {}
    for dtype in REPRESENTATION_DTYPES:
        table = encode_images_of(trained, data_dir, images, dtype)
        items = item_table_of(trained, data_dir)
        signatures = Signatures(trained.definition, forms, table, items)
        function, spec = signatures.endpoints()["rank_examples"]
        ask = tf.function(function, input_signature=[spec])
        answers = [ask(batch)["ctr"] for batch in records]
        columns[dtype] = np.concatenate(list(map(tf.boolean_mask, answers, masks)))
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
