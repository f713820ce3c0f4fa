"""Training on requests is training on their impressions, by their weights."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.dataset import Batches
from hccm_tf.models import build_model
from hccm_tf.optimizers import LazyAdam
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.training.synchronous import SynchronousTrainer
from tests.conftest import tiny

WHOLE_SPLIT = 10_000  # a batch of all impressions
STEPS = 4


@pytest.fixture(scope="module")
def single_data(request_shop, tmp_path_factory):
    """The same log as a data folder in which each impression is a request."""
    folder = tmp_path_factory.mktemp("singles") / "data"
    log = request_shop.impressions
    log = log.assign(request_id=np.arange(len(log)))
    schema = request_shop.schema
    summary = build_examples(request_shop.items, log, folder, schema=schema)
    assert summary["max_candidates"] == 1
    return folder


def _trainer(shop, data, model="base", batch_size=WHOLE_SPLIT, **arguments):
    keras.utils.set_random_seed(0)
    images = {} if model == "base" else {"feature_map_shape": shop.store.shape}
    store = shop.store if images else None
    options = tiny(model, id_dropout=0.0)
    model = build_model(model, shop.schema, **images, **options)
    loss = keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight")
    model.compile(LazyAdam(1e-2), loss, jit_compile=False)
    batches = Batches(data, shop.schema, batch_size, store, **arguments)
    return SynchronousTrainer(model, tf.distribute.get_strategy(), batches)


def _train(trainer):
    """The loss of each step, one in an epoch, and the predictions after them."""
    assert trainer.steps == 1
    losses = []
    for epoch in range(STEPS):
        for _ in trainer.train_epoch(epoch):
            losses.append(trainer.epoch_loss())
            trainer.model.reset_metrics()
    return losses, trainer.predict("test").sort_values("row", ignore_index=True)


@pytest.mark.parametrize(("model", "group"), [("hccm", False), ("base", True)])
def test_requests_train_as_their_impressions(request_shop, single_data, model, group):
    data = request_shop.data
    trainer = _trainer(request_shop, data, model, group_by_item=group)
    losses, frame = _train(trainer)
    assert losses[-1] < losses[0] - 0.01
    expected = _train(_trainer(request_shop, single_data, model))
    np.testing.assert_allclose(losses, expected[0], atol=1e-4)
    pd.testing.assert_frame_equal(frame, expected[1], atol=1e-3)
    assert frame.ctr.std() > 1e-3


def test_a_step_lowers_the_weighted_loss(request_shop):
    trainer = _trainer(request_shop, request_shop.data)
    frame = trainer.predict("train")
    log = request_shop.log.loc[frame.row]
    assert sorted(frame.row) == log.index[log.split == "train"].sort_values().tolist()
    loss = -np.log(np.where(log.label == 1, frame.ctr, 1 - frame.ctr))
    losses, _ = _train(trainer)
    assert losses[0] == pytest.approx(np.average(loss, weights=log.weight), abs=1e-5)
    assert abs(losses[0] - loss.mean()) > 1e-4


def test_items_that_are_grouped_train_each_impression_once(request_shop):
    trainer = _trainer(
        request_shop, request_shop.data, batch_size=60, group_by_item=True
    )
    log = request_shop.log
    train = log.index[log.split == "train"]
    assert trainer.steps == -(-len(train) // 60)
    dataset, rows, items = trainer._batches.dataset("train", epoch=0), [], []
    for inputs, label, weight, keys in dataset.as_numpy_iterator():
        shown = log.loc[keys["row"][:, 0]]
        assert inputs["candidate_mask"].all() and label.shape == (len(shown), 1, 1)
        np.testing.assert_array_equal(label[:, 0, 0], shown.label)
        np.testing.assert_array_equal(weight[:, 0], shown.weight)
        np.testing.assert_array_equal(keys["user_key"], shown.user_id)
        rows += shown.index.tolist()
        items.append(shown.item_id.nunique())
    assert sorted(rows) == train.tolist() and len(items) == trainer.steps
    by_chance = [log.item_id[train].sample(60, random_state=k).nunique() for k in items]
    assert np.mean(items) < 0.7 * np.mean(by_chance)
