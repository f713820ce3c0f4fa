import functools

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf import CTREstimator
from hccm_tf.data.dataset import Batches
from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from tests.conftest import tiny
from tests.preparation.examples.logs import make_items, make_log, read_impressions

RATE = 0.2


def _kept(folder, split="train"):
    """label → timestamps of the rows that are there."""
    rows = read_impressions(folder, split, "label", "timestamp")
    return {
        label: {times[0] for labels, times in rows if labels[0] == label}
        for label in (0, 1)
    }


def _log(count=4_000):
    """One impression a second, so that a timestamp names a row."""
    return make_log(count, users=30, timestamp=np.arange(count))


def test_only_negatives_of_the_training_split_are_sampled(tmp_path):
    log = _log()
    summary = build_examples(
        make_items(), log, tmp_path / "data", negative_keep_rate=RATE, num_shards=3
    )
    train = log[log.split == "train"]
    kept = _kept(tmp_path / "data")
    assert kept[1] == set(train.timestamp[train.label == 1])
    negatives = set(train.timestamp[train.label == 0])
    assert kept[0] < negatives
    deviation = np.sqrt(len(negatives) * RATE * (1 - RATE))
    assert abs(len(kept[0]) - RATE * len(negatives)) < 4 * deviation
    assert summary["negatives_left_out"] == len(negatives) - len(kept[0])
    assert summary["splits"]["test"] == 2
    assert Schema.load(tmp_path / "data").negative_keep_rate == RATE


def test_the_sample_depends_on_row_and_seed_alone(tmp_path):
    log = _log()
    sets = {}
    for name, frame, options in (
        ("plain", log, {}),
        ("shuffled", log.sample(frac=1, random_state=0), {"num_shards": 3}),
        ("seed", log, {"seed": 1}),
    ):
        build_examples(
            make_items(), frame, tmp_path / name, negative_keep_rate=RATE, **options
        )
        sets[name] = _kept(tmp_path / name)
    assert sets["plain"] == sets["shuffled"]
    assert sets["plain"][0] != sets["seed"][0]


def test_histories_and_statistics_are_those_of_the_data(tmp_path):
    log = _log(400)
    build_examples(make_items(), log, tmp_path / "all")
    build_examples(make_items(), log, tmp_path / "some", negative_keep_rate=RATE)
    names = ("timestamp", "history_item_id")
    everything = dict(read_impressions(tmp_path / "all", "train", *names))
    some = read_impressions(tmp_path / "some", "train", *names)
    assert all(everything[time] == history for time, history in some)
    kept = _kept(tmp_path / "some")
    train = log[log.timestamp.isin(kept[0] | kept[1]) & (log.split == "train")]
    counts = train.user_id.value_counts()
    frequency = Schema.load(tmp_path / "some")["user_id"].frequency
    assert frequency == pytest.approx(counts.mean())


def test_rows_without_a_time_that_are_alike_are_sampled_one_by_one(tmp_path):
    log = make_log(1_000, users=1, item_id=1, label=0).drop(columns="timestamp")
    log["history_item_id"] = [[]] * 1_000
    summary = build_examples(make_items(), log, tmp_path / "d", negative_keep_rate=RATE)
    assert 140 < summary["splits"]["train"] < 260


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.5])
def test_a_rate_is_a_share(tmp_path, rate):
    with pytest.raises(InputError, match="negative_keep_rate.*Received"):
        build_examples(
            make_items(), make_log(), tmp_path / "data", negative_keep_rate=rate
        )


def test_the_click_rate_of_the_whole_log_comes_back(tmp_path):
    # Every user clicks a known share of what is shown: only the sample is noise.
    shares = np.array([0.05, 0.1, 0.2, 0.3])
    count = 60_000
    user = np.arange(count) % 4
    place = np.arange(count) // 4
    label = (place % 20 < 20 * shares[user]).astype(int)
    log = pd.DataFrame(
        {
            "user_id": user,
            "item_id": np.random.default_rng(0).integers(1, 6, count),
            "timestamp": np.arange(count),
            "label": label,
            "split": np.select(
                [np.arange(count) < 48_000, np.arange(count) < 54_000],
                ["train", "validation"],
                "test",
            ),
        }
    )
    # One feature, so that the fit is the counts and nothing else.
    schema = Schema((Feature("user_id", "vocabulary"),), negative_keep_rate=RATE)
    build_examples(make_items(), log, tmp_path / "data", schema=schema)
    estimator = CTREstimator("base", epochs=1, **tiny("base", id_dropout=0.0))
    estimator.fit(tmp_path / "data")
    # The best AUC comes long before the best click rates: train on to the end.
    batches = Batches(tmp_path / "data", estimator.schema_, 512)
    epochs = [batches.dataset("train", epoch) for epoch in range(16)]
    dataset = functools.reduce(tf.data.Dataset.concatenate, epochs)
    decay = keras.optimizers.schedules.CosineDecay(1e-2, len(dataset))
    estimator.model_.compile(
        keras.optimizers.Adam(decay), "binary_crossentropy", jit_compile=False
    )
    estimator.model_.fit(
        dataset.map(
            lambda inputs, label, weight, _: (inputs, label[..., None], weight)
        ),
        verbose=0,
    )
    expected = log.label[log.split == "test"].mean()
    predictions = estimator.predictions(tmp_path / "data")
    assert predictions.ctr.mean() == pytest.approx(expected, rel=0.02)
    metrics = estimator.evaluate(tmp_path / "data")
    assert metrics["calibration"] == pytest.approx(1, abs=0.02)
    version = estimator.export(tmp_path / "export")
    signature = tf.saved_model.load(version).signatures["serving_default"]
    answer = signature(user_id=tf.range(4, dtype=tf.int64))["ctr"].numpy()
    assert answer == pytest.approx(shares, rel=0.1)
