"""Replicas that stay in step, against one device and NumPy."""

import json

import numpy as np
import pytest

from hccm_tf.training.local_cluster import tasks
from tests.training.cluster import PATIENCE, run_script

OPTIONS = {
    "embedding_dim": 4,
    "hidden_units": [8],
    "ensemble_size": 2,
    "attention_hidden_units": [6],
    "image_embedding_dim": 6,
    "cnn_filters": [5, 7],
    # Dice would take the statistics of a replica's own batch.
    "attention_activation": "relu",
    "id_dropout": 0.0,
}
STEPS = 50
SCRIPT = """
import itertools, json, sys, tempfile
import keras, numpy as np, tensorflow as tf
from hccm_tf.training.strategies import make_strategy

data, maps, options, name, steps = sys.argv[1:]
options, steps = json.loads(options), int(steps)
if name == "multi_worker_mirrored":
    strategy = make_strategy(name)
elif name == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
else:
    strategy = tf.distribute.get_strategy()

from hccm_tf.data.dataset import Batches
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.schema import Schema
from hccm_tf.models import build_model
from hccm_tf.models.ensemble import EnsembleLoss
from hccm_tf.optimizers import LazyAdam
from hccm_tf.training.checkpoints import restore_checkpoint, save_checkpoint
from hccm_tf.training.synchronous import SynchronousTrainer

schema, store = Schema.load(data), FeatureMapStore.open(maps)

batches = Batches(data, schema, 25, store)
make = batches.dataset

keras.utils.set_random_seed(0)
with strategy.scope():
    model = build_model("hccm", schema, feature_map_shape=store.shape, **options)
    frozen = 0
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
            frozen += 1
    assert frozen
    loss = EnsembleLoss(reduction="mean_with_sample_weight")
    model.compile(LazyAdam(0.01), loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)

def merged(one, other):
    # The batch of two batches, whose mean losses count alike.
    (one, label, weight, _), (other, more, heavy, _) = one, other
    images, inputs = len(one["image_map"]), {}
    for key, a in one.items():
        b = other[key]
        if key in ("candidate_image", "history_image"):
            b = np.where(b > 0, b + images, 0)
        if a.ndim == 2:
            width = max(a.shape[1], b.shape[1])
            a, b = (np.pad(x, [(0, 0), (0, width - x.shape[1])]) for x in (a, b))
        inputs[key] = np.concatenate([a, b])
    weights = weight / weight.sum(), heavy / heavy.sum()
    return inputs, np.concatenate([label, more]), np.concatenate(weights)

losses = []
if name.startswith("one_device"):
    # Of the parts of two workers, or of one process with two replicas.
    for epoch in itertools.count():
        if name.endswith("workers"):
            parts = [make("train", epoch, (i, 2)).as_numpy_iterator() for i in (0, 1)]
            pairs = zip(*parts)
        else:
            iterator = make("train", epoch).as_numpy_iterator()
            pairs = zip(iterator, iterator)
        for batch in itertools.starmap(merged, pairs):
            model.reset_metrics()
            losses.append(float(model.train_on_batch(*batch)))
        if len(losses) >= steps:
            break
else:
    trainer = SynchronousTrainer(model, strategy, batches)
    for epoch in itertools.count():
        for logs in trainer.train_epoch(epoch):
            losses.append(trainer.epoch_loss())
            model.reset_metrics()
        if len(losses) >= steps:
            break
    frame = trainer.predict("test")
    columns = []
    for x, y, w, keys in make("test").as_numpy_iterator():
        some = x["candidate_mask"]
        users = np.repeat(keys["user_key"], some.sum(1))
        ctr = model(x, training=False).numpy()
        columns.append((keys["row"][some], users, y[some][:, 0], w[some],
                        ctr[some][:, 0]))
    assert list(frame) == ["row", "user_key", "label", "weight", "ctr"]
    for name, column in zip(frame, zip(*columns)):
        np.testing.assert_allclose(frame[name], np.concatenate(column), atol=1e-6)
    # Each replica has moving averages of its own, until all have their mean.
    (weight, *_) = [w for w in model.weights if w.path.endswith("moving_mean")]
    replicas = strategy.experimental_local_results(weight.value)
    resolver = strategy.cluster_resolver
    first = resolver.task_id if resolver is not None else 0
    for number, value in enumerate(replicas, first):
        value.assign(tf.fill(value.shape, float(number)))
    trainer.predict("validation")
    for value in replicas:
        np.testing.assert_array_equal(value, 0.5)
    if resolver is None:
        # A run that goes on within an epoch has the loss of all replicas so far.
        steps_of_epoch = trainer.train_epoch(0)
        for _ in range(3):
            next(steps_of_epoch)
        before = [variable.numpy() for variable in model.metrics_variables]
        folder = tempfile.mkdtemp()
        with strategy.scope():
            save_checkpoint(folder, model, {})
        model.reset_metrics()
        restore_checkpoint(folder, model)
        after = [variable.numpy() for variable in model.metrics_variables]
        assert min(before) > 0
        np.testing.assert_allclose(after, before, rtol=1e-6)
print(json.dumps(losses[:steps]))
"""


APART = """
import sys
from hccm_tf import CTREstimator
from hccm_tf.errors import InputError
from hccm_tf.training.strategies import make_strategy
from hccm_tf.training.synchronous import SynchronousTrainer

strategy = make_strategy("multi_worker_mirrored")
check_agreement = SynchronousTrainer.check_agreement

def apart(self, progress):
    worker = strategy.cluster_resolver.task_id
    if kind == "weights" and worker:
        weight = self.model.weights[-1]
        weight.assign(weight + 1)
    check_agreement(self, [worker] if kind == "steps" else progress)

SynchronousTrainer.check_agreement = apart
for kind in sys.argv[2:]:
    try:
        CTREstimator("base", epochs=1, strategy=strategy).fit(sys.argv[1])
    except InputError as error:
        print(kind, error, flush=True)
"""
APART_IN = ("weights", "steps")


@pytest.fixture(scope="module")
def said_apart(shop):
    """What two workers say that are apart in one thing after the other."""
    processes = [
        run_script(APART, shop.data, *APART_IN, config=config)
        for _, config in tasks(2, 0)
    ]
    return [process.communicate(timeout=PATIENCE) for process in processes]


@pytest.mark.parametrize("kind", APART_IN)
def test_workers_that_are_apart_do_not_train(said_apart, kind):
    for output, error in said_apart:
        said = [line for line in output.splitlines() if line.startswith(kind)]
        assert len(said) == 1, error[-3000:]
        assert "the workers have different weights" in said[0]


def _losses(process):
    output, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    return np.array(json.loads(output.splitlines()[-1]))


@pytest.mark.parametrize(
    ("strategy", "reference"),
    [
        ("multi_worker_mirrored", "one_device_of_workers"),
        ("mirrored", "one_device_of_replicas"),
    ],
)
def test_replicas_train_as_one_device_with_their_batches(
    request_shop, strategy, reference
):
    arguments = request_shop.data, request_shop.maps, json.dumps(OPTIONS)
    workers = 2 if strategy == "multi_worker_mirrored" else 1
    # What workers do must not hang on the order of a set, which differs between them.
    processes = [
        run_script(SCRIPT, *arguments, strategy, STEPS, config=config, forked=first)
        for first, (_, config) in zip((True, False), tasks(workers, 0), strict=False)
    ]
    expected = _losses(run_script(SCRIPT, *arguments, reference, STEPS))
    assert len(expected) == STEPS and expected[-1] < expected[0]
    for process in processes:
        np.testing.assert_allclose(_losses(process), expected, atol=1e-4)
