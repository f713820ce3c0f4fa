"""Training speed of `din` against the DIN of other packages, side by side.

    python benchmarks/din_vs_peers.py --lengths=full --request_size=10
        --fuxictr=PYTHON --deepctr_torch=PYTHON --deepctr=PYTHON --json=FILE

Each PYTHON is the interpreter of an environment of its own:

    pip install fuxictr==2.3.10 deepctr-torch==0.3.0 torch    (fuxictr, deepctr_torch)
    pip install deepctr==0.9.4 "tensorflow<2.16"              (deepctr)

All sides train one network on the same ids with Adam (`din/workload.py`): 25 features,
1 million users, a history of 100 that shares the table of item_id, batch 1024,
dimension 8, attention unit 80-40 with Dice or ReLU, MLP 400-160-80. With requests of
10 impressions, ours computes once what these share; the others have no such form and
get a copy of user and history for each impression. Ours has
`LazyAdam`, and for comparison Keras' Adam; no other package brings an optimizer of
single rows. Where histories have padding, the others' normalisation may count it.
`floor` is not a model: only the matrix products of the attention unit that no request
shares. Each side is a process that keeps its model; one at a time trains, in turn.
"""

import json
import os
import pathlib
import subprocess
import sys

import pandas as pd
from absl import app, flags
from din.workload import BATCH_SIZE
from timing import ratio, report

FOLDER = pathlib.Path(__file__).resolve().parent
PEERS = ("fuxictr", "deepctr_torch", "deepctr")


def start(name, python, *arguments):
    """Starts a side; returns its process, its answers and its number of parameters."""
    # A pipe of its own, because the packages print.
    read, write = os.pipe()
    script = FOLDER / "din" / f"{name.split(',')[0]}_din.py"
    process = subprocess.Popen(
        [
            *(python, script, FLAGS.lengths, str(FLAGS.request_size)),
            *(FLAGS.activation, str(write), *arguments),
        ],
        stdin=subprocess.PIPE,
        pass_fds=[write],
        env=os.environ | {"PYTHONPATH": str(FOLDER.parent)},
        text=True,
    )
    os.close(write)
    answers = open(read)
    return process, answers, answer(answers, name)


def answer(answers, name):
    line = answers.readline()
    if not line:
        raise RuntimeError(f"the side {name} ended: what it printed says why")
    return json.loads(line)


def main(argv):
    del argv
    sides = {
        "hccm_tf": (sys.executable, "LazyAdam"),
        "hccm_tf, Adam": (sys.executable, "Adam"),
        "floor": (sys.executable,),
    }
    sides |= {name: (FLAGS[name].value,) for name in PEERS if FLAGS[name].value}
    started = {name: start(name, *command) for name, command in sides.items()}
    batch_size = BATCH_SIZE // FLAGS.request_size * FLAGS.request_size
    rounds = []
    try:
        # The first round warms up.
        for _ in range(FLAGS.rounds + 1):
            rounds.append({})
            for name, (process, answers, _) in started.items():
                print(FLAGS.steps, file=process.stdin, flush=True)
                seconds = answer(answers, name)
                rounds[-1][name] = batch_size * FLAGS.steps / seconds
    finally:
        for process, _, _ in started.values():
            process.stdin.close()
            process.wait()
    rates = pd.DataFrame(rounds[1:])
    table = rates.quantile([0.5, 0.25, 0.75]).T
    table.columns = ["examples/s", "quartile 1", "quartile 3"]
    table["parameters"] = {name: count for name, (*_, count) in started.items()}
    ratios = {"hccm_tf / floor": ratio(rates, "hccm_tf", "floor")}
    peers = [name for name in PEERS if name in started]
    if peers:
        best = rates[peers].median().idxmax()
        for name in ("hccm_tf", "hccm_tf, Adam"):
            ratios[f"{name} / {best}"] = ratio(rates, name, best)
    work = f"{FLAGS.request_size} impressions a request, histories {FLAGS.lengths}"
    work += f", {FLAGS.activation}"
    title = f"din, {work}, {os.cpu_count()} cores"
    report({title: table}, ratios, FLAGS.json)


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_enum("lengths", "full", ["full", "long_tail"], "Of the histories.")
    flags.DEFINE_integer("request_size", 1, "Impressions a request.", lower_bound=1)
    flags.DEFINE_enum("activation", "dice", ["dice", "relu"], "Of the attention unit.")
    flags.DEFINE_integer("rounds", 7, "Number of alternations.", lower_bound=1)
    flags.DEFINE_integer("steps", 10, "Training steps a round.", lower_bound=1)
    for name in PEERS:
        flags.DEFINE_string(name, None, f"Interpreter that has {name}.")
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
