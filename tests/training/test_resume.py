"""A run that is interrupted and resumed is the run that was not, bit for bit."""

import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd

from hccm_tf.errors import PREEMPTED
from tests.training.cluster import TRAIN_MAIN, Cluster, newest_checkpoint, run_script

# A checkpoint after each step; the run dies after some of them, and inside of one.
SCRIPT = """
import json, sys, tempfile
import numpy as np
import tensorflow as tf
tf.config.experimental.enable_op_determinism()
from hccm_tf import CTREstimator
from hccm_tf.training import checkpoints, loop

data, maps, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
loop.SAVE_SECONDS = 0

class Killed(BaseException):
    pass

def fit(run_dir, resume=False):
    estimator = CTREstimator("hccm", maps, epochs=2, patience=1, batch_size=200,
        learning_rate=0.01, run_dir=run_dir, resume=resume, group_by_item=True,
        **options)
    estimator.fit(data)
    history = open(f"{run_dir}/history.csv").read()
    weights = [w.tolist() for w in estimator.model_.get_weights()]
    return [history, weights, estimator.evaluate(data)]

straight = fit(tempfile.mkdtemp())
save, write = loop.save_checkpoint, checkpoints._write_array
for last, inside in ((2, False), (7, True), (9, False)):
    run_dir, saves = tempfile.mkdtemp(), []
    def dying_save(*arguments):
        saves.append(0)
        if inside and len(saves) == last:
            def dying_write(archive, name, array):
                if name == "optimizer/3":
                    raise Killed
                write(archive, name, array)
            checkpoints._write_array = dying_write
        save(*arguments)
        if len(saves) == last:
            raise Killed
    loop.save_checkpoint = dying_save
    try:
        fit(run_dir)
        print("was not killed: False")
    except Killed:
        pass
    loop.save_checkpoint, checkpoints._write_array = save, write
    print(last, inside, fit(run_dir, resume=True) == straight)
"""


def test_a_run_that_is_resumed_at_any_step_is_the_same(shop):
    options = {
        "embedding_dim": 4,
        "hidden_units": [8],
        "attention_hidden_units": [6],
        "image_embedding_dim": 6,
        "cnn_filters": [5, 7],
        "dropout": 0.3,
        "id_dropout": 20.0,
    }
    process = run_script(SCRIPT, shop.data, shop.maps, json.dumps(options))
    output, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    lines = [line for line in output.splitlines() if line.endswith(("True", "False"))]
    assert len(lines) == 3 and all(line.endswith("True") for line in lines), lines


def test_a_process_that_is_killed_or_preempted_goes_on(shop, tmp_path):
    command = [
        TRAIN_MAIN,
        "--model=din",
        f"--data_dir={shop.data}",
        "--batch_size=50",
        "--patience=1000",
        "--dropout=0.2",
        "--attention_activation=relu",
    ]

    def run_dir(name):
        return tmp_path / name / "run"

    def results(name):
        metrics = json.loads((run_dir(name) / "metrics.json").read_text())
        history = pd.read_csv(run_dir(name) / "history.csv")
        predictions = pd.read_parquet(run_dir(name) / "test_predictions.parquet")
        return metrics["validation"], metrics["test"], history, predictions

    for name, number in (("killed", signal.SIGKILL), ("preempted", signal.SIGTERM)):
        folder = run_dir(name).parent
        folder.mkdir()
        arguments = [*command, f"--run_dir={run_dir(name)}"]
        with Cluster(folder, 1, 0, arguments) as cluster:
            cluster.start(more=["--epochs=1000"])
            cluster.wait_until(lambda name=name: newest_checkpoint(run_dir(name))[0])
            cluster.signal("worker-0", number)
            if number == signal.SIGTERM:
                assert cluster.wait("worker-0") == PREEMPTED
                assert "--resume" in cluster.text("worker-0")
        epochs = newest_checkpoint(run_dir(name))[1] + 1
        subprocess.run(
            [sys.executable, *arguments, f"--epochs={epochs}", "--resume"], check=True
        )
        straight = f"straight-{name}"
        subprocess.run(
            [
                sys.executable,
                *command,
                f"--epochs={epochs}",
                f"--run_dir={run_dir(straight)}",
            ],
            check=True,
        )
        one, other = results(name), results(straight)
        assert one[:2] == other[:2]
        for a, b in zip(one[2:], other[2:], strict=True):
            np.testing.assert_array_equal(a.to_numpy(), b.to_numpy())
