import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from hccm_tf.configuration import configure
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.trees.features import Table
from hccm_tf.trees.fit import check_trees, fit_tables, fit_trees
from tests.preparation.examples.logs import make_items, make_log


def _configuration(shop, given=None, **folders):
    return configure(
        "trees", given or {}, data_dir=shop.data, feature_maps=shop.maps, **folders
    )


@pytest.fixture(scope="module")
def fitted(weighted_shop):
    return fit_trees(_configuration(weighted_shop, {"similarity": "cosine"}))


def test_the_trees_of_the_best_log_loss_on_validation_are_kept(fitted, weighted_shop):
    frame = fitted.predictions("validation")
    log = weighted_shop.log[weighted_shop.log.split == "validation"]
    assert sorted(frame.row) == log.index.tolist()
    losses = -fitted.trained.classifier.validation_score_[1:]
    weights = {"sample_weight": frame.weight}
    found = log_loss(frame.label, frame.ctr, **weights)
    assert found == pytest.approx(losses.min()) and losses.min() < losses[-1]
    assert found != pytest.approx(log_loss(frame.label, frame.ctr))
    assert fitted.evaluate("validation")["log_loss"] == pytest.approx(found)
    trees = losses.argmin() + 1
    assert fitted.trained.num_parameters == 31 * trees
    assert fitted.training["epochs"] == len(losses) and fitted.training["seconds"] > 0


def test_a_seed_gives_the_same_trees(fitted, weighted_shop):
    again = fit_trees(_configuration(weighted_shop, {"similarity": "cosine"}))
    pd.testing.assert_frame_equal(again.predictions("test"), fitted.predictions("test"))


def test_photos_may_be_shuffled(fitted, weighted_shop):
    given = {"similarity": "cosine", "shuffle_images": True}
    other = fit_trees(_configuration(weighted_shop, given)).predictions("test")
    assert not np.allclose(other.ctr, fitted.predictions("test").ctr)


def _table(rng, count, weight=None):
    """Impressions whose clicks one of two numbers tells, and one of two categories."""
    numbers = rng.normal(size=(count, 2)).astype(np.float32)
    categories = rng.integers(1, 6, size=(count, 2)).astype(np.int32)
    logit = 2 * numbers[:, 0] + 1.5 * (categories[:, 1] == 3)
    label = (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    weight = np.ones(count, np.float32) if weight is None else weight
    rows = pd.DataFrame({"row": range(count), "label": label, "weight": weight})
    return Table(rows, numbers, categories, (6, 6))


def test_what_numbers_and_categories_tell_is_learnt(shop):
    rng = np.random.default_rng(0)
    configuration = _configuration(shop)
    trained = fit_tables(configuration, _table(rng, 20_000), _table(rng, 4_000), 1.0)
    test = _table(rng, 8_000)
    logit = 2 * test.numbers[:, 0] + 1.5 * (test.categories[:, 1] == 3)
    oracle = 1 / (1 + np.exp(-logit))
    losses = [log_loss(test.rows.label, p) for p in (trained.predict(test), oracle)]
    assert losses[1] < losses[0] < losses[1] + 0.01


def test_impressions_without_weight_do_not_count(shop):
    """Not in the trees, and not in the click rates."""
    rng = np.random.default_rng(0)
    weight = (rng.random(20_000) < 0.5).astype(np.float32)
    train, validation = _table(rng, 20_000, weight), _table(rng, 4_000)
    wrong = train.rows.label.where(train.rows.weight > 0, 1 - train.rows.label)
    changed = dataclasses.replace(train, rows=train.rows.assign(label=wrong))
    test, configuration = _table(rng, 4_000), _configuration(shop)
    right, found = (
        fit_tables(configuration, table, validation, 1.0).predict(test)
        for table in (train, changed)
    )
    np.testing.assert_array_equal(found, right)


def test_validation_counts_as_training_was_sampled(shop):
    rng, rate = np.random.default_rng(0), 0.05
    train, validation = _table(rng, 60_000), _table(rng, 20_000)
    held = np.flatnonzero((train.rows.label == 1) | (rng.random(60_000) < rate))
    parts = train.rows.iloc[held], train.numbers[held], train.categories[held]
    sampled, test = Table(*parts, train.sizes), _table(rng, 20_000)

    def loss(told):
        trained = fit_tables(_configuration(shop), sampled, validation, told)
        odds = 1 / (1 / trained.predict(test) - 1) * rate
        return log_loss(test.rows.label, odds / (1 + odds))

    assert loss(rate) < loss(1.0) - 1e-4


@pytest.mark.parametrize(
    ("given", "folders", "words"),
    [
        ({"similarity": "cosine"}, {"feature_maps": None}, "feature_maps: model trees"),
        ({"shuffle_images": True}, {}, "shuffle_images: trees see no images with"),
        ({"max_history": 99}, {}, "max_history: 1 to 8"),
        ({}, {"warm_start_from": "RUN"}, "warm_start_from: trees begin anew"),
        ({}, {"strategy": "parameter_server"}, "strategy: .*parameter_server"),
        ({}, {"data_dir": "no_such"}, "no_such"),
    ],
)
def test_what_cannot_be_done_is_said_first(shop, given, folders, words):
    configuration = dataclasses.replace(_configuration(shop, given), **folders)
    with pytest.raises(InputError, match=words):
        check_trees(configuration)


def test_cosines_by_category_need_categories(shop, tmp_path):
    data = shutil.copytree(shop.data, tmp_path / "data")
    schema = json.loads((data / "schema.json").read_text())
    features = [f for f in schema["features"] if f["name"] != "history_category"]
    (data / "schema.json").write_text(json.dumps({**schema, "features": features}))
    configuration = _configuration(shop, {"similarity": "category_cosine"})
    with pytest.raises(InputError, match="category_cosine: .* no history_category"):
        check_trees(dataclasses.replace(configuration, data_dir=data))


def test_settings_of_networks_are_not_read(shop):
    for name, value in (("epochs", 3), ("learning_rate", 0.1), ("hidden_units", (4,))):
        with pytest.raises(
            InputError, match=f"trees does not read {name}.*max_history"
        ):
            _configuration(shop, {name: value})


def test_one_label_is_not_enough(tmp_path):
    log = make_log(60)
    log.loc[log.split == "train", "label"] = 0
    build_examples(make_items(), log, tmp_path / "data", num_shards=1)
    with pytest.raises(InputError, match="split train has no click.*no tree can grow"):
        fit_trees(configure("trees", {}, data_dir=tmp_path / "data"))
