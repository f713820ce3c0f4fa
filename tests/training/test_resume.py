"""A run that is interrupted and resumed is the run that was not, bit for bit."""

import contextlib
import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd

from hccm_tf.errors import PREEMPTED
from tests.processes import Script
from tests.training.cluster import (
    PATIENCE,
    TRAIN_MAIN,
    Cluster,
    newest_checkpoint,
    run_script,
)

# A checkpoint after each step; the run dies after some of them, and inside of the one
# that ends the first epoch, and is resumed each time.
SCRIPT = """
import json, pathlib, sys, tempfile
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
    estimator = CTREstimator("hccm", maps, epochs=2, patience=1, batch_size=130,
        learning_rate=0.01, run_dir=run_dir, resume=resume, group_by_item=True,
        **options)
    estimator.fit(data)
    history = open(f"{run_dir}/history.csv").read()
    weights = [w.tolist() for w in estimator.model_.get_weights()]
    return [history, weights, estimator.evaluate(data)]

def newest_state(run_dir):
    return json.loads(max(pathlib.Path(run_dir).glob("*/0*/state.json")).read_text())

straight = fit(tempfile.mkdtemp())
save, write = loop.save_checkpoint, checkpoints._write_array
run_dir = tempfile.mkdtemp()
for number, (last, inside) in enumerate([(2, False), (5, True), (3, False)]):
    saves = []
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
        fit(run_dir, resume=number > 0)
        print("was not killed: False")
    except Killed:
        progress = newest_state(run_dir)["progress"]
        print("\\nkilled at", progress["epoch"], progress["steps"])
    loop.save_checkpoint, checkpoints._write_array = save, write
print("\\nthe same:", fit(run_dir, resume=True) == straight)
"""


def test_a_run_that_is_resumed_at_any_step_is_the_same(request_shop):
    options = {
        "embedding_dim": 4,
        "hidden_units": [8],
        "attention_hidden_units": [6],
        "image_embedding_dim": 6,
        "cnn_filters": [5, 7],
        # Less to trace in each of the five fits.
        "image_sides": "candidate",
        "dropout": 0.3,
        "id_dropout": 20.0,
        "ensemble_size": 2,
    }
    folders = request_shop.data, request_shop.maps
    process = run_script(SCRIPT, *folders, json.dumps(options))
    output, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    said = [line for line in output.splitlines() if line.startswith(("kill", "the"))]
    # The second died inside of a checkpoint: the one before it counts.
    killed = ["killed at 0 2", "killed at 0 6", "killed at 1 2"]
    assert said == [*killed, "the same: True"]


def test_a_process_that_is_killed_or_preempted_goes_on(request_shop, tmp_path):
    command = [
        TRAIN_MAIN,
        "--model=din",
        "--noverdict",
        f"--data_dir={request_shop.data}",
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

    ends = {"killed": signal.SIGKILL, "preempted": signal.SIGTERM}
    arguments = {name: [*command, f"--run_dir={run_dir(name)}"] for name in ends}
    with contextlib.ExitStack() as stack:
        clusters = {}
        for name in ends:
            folder = run_dir(name).parent
            folder.mkdir()
            cluster = stack.enter_context(Cluster(folder, 1, 0, arguments[name]))
            cluster.start(more=["--epochs=1000"])
            clusters[name] = cluster
        for name, number in ends.items():
            clusters[name].wait_until(lambda n=name: newest_checkpoint(run_dir(n))[0])
            clusters[name].signal("worker-0", number)
        assert clusters["preempted"].wait("worker-0") == PREEMPTED
        assert "--resume" in clusters["preempted"].text("worker-0")
    epochs = 1 + max(newest_checkpoint(run_dir(name))[1] for name in ends)
    resumed = [[*words, "--resume"] for words in arguments.values()]
    straight = [*command, f"--run_dir={run_dir('straight')}"]
    straight = subprocess.Popen([sys.executable, *straight, f"--epochs={epochs}"])
    for process in [Script([*words, f"--epochs={epochs}"]) for words in resumed]:
        _, error = process.communicate(PATIENCE)
        assert process.returncode == 0, error[-3000:]
    assert straight.wait(PATIENCE) == 0
    expected = results("straight")
    for name in ends:
        found = results(name)
        assert found[:2] == expected[:2]
        for one, other in zip(found[2:], expected[2:], strict=True):
            np.testing.assert_array_equal(one.to_numpy(), other.to_numpy())
