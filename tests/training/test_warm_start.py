import collections
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from hccm_tf import CTREstimator
from hccm_tf.configuration import configure
from hccm_tf.data import ids
from hccm_tf.data.feature import Feature
from hccm_tf.data.feature_kinds import OOV, RESERVED
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.models import ImageInput
from hccm_tf.models.ensemble import rankers_of
from hccm_tf.runs import TrainedModel
from hccm_tf.training.images import check_same_cnn
from hccm_tf.training.warm_start import (
    _common_rows,
    check_same_features,
    started_schema,
    warm_start,
)
from tests.conftest import tiny
from tests.reference import COLLIDING, fingerprint


@pytest.fixture(scope="module")
def runs(fitted, tmp_path_factory):
    """Folders of the fitted models."""
    folders = {name: tmp_path_factory.mktemp(name) / "run" for name in fitted}
    for name, folder in folders.items():
        fitted[name].save(folder)
    return folders


@pytest.fixture(scope="module")
def started(runs):
    """What a warm start takes of the runs."""
    return {name: TrainedModel.load(folder) for name, folder in runs.items()}


def _options(name):
    return tiny(name, **({"similarity": "cosine"} if name != "din" else {}))


def _model(name, schema, store=None, **changes):
    """A `TrainedModel` with new weights."""
    keras.utils.set_random_seed(7)
    configuration = configure(name, {**_options(name), **changes})
    images = cnn = None
    if store is not None:
        images = ImageInput(store.shape, store.channel_mean, store.channel_std)
        cnn = store.cnn
    definition = configuration.model(schema, configuration.options, images)
    return TrainedModel(definition.build(), definition, configuration, cnn)


def _estimator(model, shop, **arguments):
    return CTREstimator(
        model,
        feature_maps=shop.maps,
        batch_size=128,
        learning_rate=1e-2,
        **_options(model),
        **arguments,
    )


def _values(model):
    return _by_path(model.keras_model)


def _by_path(model):
    return {weight.path: np.array(weight) for weight in model.weights}


def _with(schema, **changes):
    """The schema with other values of some features' fields."""
    features = tuple(
        dataclasses.replace(f, **changes.get(f.name, {})) for f in schema.features
    )
    return dataclasses.replace(schema, features=features)


def _of_another_day(schema):
    """Users have come, items have come and gone, and so has a category."""
    keys = dict(schema.vocabularies)
    keys["user_id"] = np.union1d(keys["user_id"], [-3, 7_777_777])
    keys["item_id"] = np.union1d(keys["item_id"][::2], [-1, 10_000_000])
    keys["category"] = np.union1d(keys["category"][1:], [fingerprint("hat")])
    counts = {name: 1 + np.arange(len(k)) for name, k in keys.items()}
    schema = dataclasses.replace(schema, vocabularies=keys, checks={}, counts=counts)
    return _with(schema, **{name: {"size": len(k)} for name, k in keys.items()})


def _expected_table(old, new, old_keys, new_keys):
    """Row by row, through a dict; `new` are the initial values."""
    row_of = {key: old[RESERVED + place] for place, key in enumerate(old_keys)}
    rows = [row_of.get(key, new[RESERVED + p]) for p, key in enumerate(new_keys)]
    return np.stack([old[0], old[OOV], *rows])


@pytest.mark.parametrize("how", ["all", "all_but_ids", "shrink"])
@pytest.mark.parametrize("name", ["din", "hccm"])
def test_every_weight(shop, fitted, started, name, how):
    schema = _of_another_day(shop.schema)
    store = None if name == "din" else shop.store
    model = _model(name, schema, store)
    initial, old = _values(model), _values(fitted[name].fitted_.trained)
    warm_start(model, started[name], how)
    values = _values(model)
    assert set(values) == set(old)
    tables = {f"{n}_embedding/embeddings": n for n in shop.schema.vocabularies}
    if name == "hccm":
        tables["hybrid_cnn/prior/embedding/embeddings"] = "category"
    assert set(tables) <= set(values)
    trained = {weight.path for weight in model.keras_model.trainable_weights}
    for path, value in values.items():
        if path.endswith("/rates"):  # which follow from the schema
            expected = initial[path]
        elif path not in tables:
            expected = old[path]
        elif how == "all_but_ids" and "prior" not in path:
            expected = initial[path]
        else:
            keys = (s.vocabularies[tables[path]] for s in (shop.schema, schema))
            expected = _expected_table(old[path], initial[path], *keys)
        if how == "shrink" and path in trained:
            expected = 0.2 * expected + 0.8 * initial[path]
            np.testing.assert_allclose(value, expected, 1e-6, 1e-8, err_msg=path)
            continue
        np.testing.assert_array_equal(value, expected, err_msg=path)
    hidden = next(path for path in values if "hidden_0" in path)
    assert (values[hidden] != initial[hidden]).any()


def test_every_ranker_of_an_ensemble(shop):
    schema = _of_another_day(shop.schema)
    old, model = (_model("din", s, ensemble_size=2) for s in (shop.schema, schema))
    rng = np.random.default_rng(0)
    for weight in old.keras_model.weights:
        weight.assign(rng.normal(size=weight.shape))
    tables = {f"{n}_embedding/embeddings": n for n in shop.schema.vocabularies}
    members = [rankers_of(one.keras_model) for one in (old, model)]
    weights = [[_by_path(member) for member in both] for both in members]
    warm_start(model, old, "all")
    for member, (before, initial) in zip(
        members[1], zip(*weights, strict=True), strict=True
    ):
        after = _by_path(member)
        assert set(tables) < set(after)
        for path in set(after) - set(tables):
            expected = initial if path.endswith("/rates") else before
            np.testing.assert_array_equal(after[path], expected[path], err_msg=path)
        for path, name in tables.items():
            keys = (s.vocabularies[name] for s in (shop.schema, schema))
            expected = _expected_table(before[path], initial[path], *keys)
            np.testing.assert_array_equal(after[path], expected, err_msg=path)
    other = _model("din", schema, ensemble_size=3)
    with pytest.raises(InputError, match="has shape None there. Received: .*options"):
        warm_start(other, old, "all")


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_without_training_it_is_the_model_of_the_run(shop, fitted, runs, name):
    twin = _estimator(name, shop, epochs=0, warm_start_from=runs[name]).fit(shop.data)
    np.testing.assert_array_equal(
        twin.predict_proba(shop.data), fitted[name].predict_proba(shop.data)
    )
    assert twin.validation_metrics_ == fitted[name].validation_metrics_
    with pytest.raises(InputError, match="^epochs=0: .* needs warm_start_from"):
        _estimator(name, shop, epochs=0).fit(shop.data)


def test_what_is_standardised_keeps_its_scale(shop, fitted, runs, started, tmp_path):
    """Another day has other means, and its negatives are thinned out."""
    data, maps = tmp_path / "data", tmp_path / "maps"
    shutil.copytree(shop.data, data)
    shutil.copytree(shop.maps, maps)
    content = json.loads((data / "schema.json").read_text())
    content["negative_keep_rate"] = 0.25
    floats = [f for f in content["features"] if f["kind"] == "float"]
    assert floats
    for feature in floats:
        feature.update(mean=feature["mean"] + 3, std=feature["std"] * 2)
    (data / "schema.json").write_text(json.dumps(content))
    metadata = json.loads((maps / "feature_maps.json").read_text())
    # Which say what the next two are.
    del metadata["moments"]
    for name, factor in (("channel_mean", -1), ("channel_std", 3)):
        metadata[name] = [factor * value for value in metadata[name]]
    (maps / "feature_maps.json").write_text(json.dumps(metadata))
    twin = CTREstimator(
        "hccm",
        maps,
        epochs=0,
        batch_size=128,
        warm_start_from=runs["hccm"],
        **_options("hccm"),
    ).fit(data)
    np.testing.assert_array_equal(
        twin.predict_proba(data), fitted["hccm"].predict_proba(shop.data)
    )
    twin.save(tmp_path / "again")
    folders = runs["hccm"], tmp_path / "again"
    first, second = ((f / "schema" / "schema.json").read_text() for f in folders)
    assert first == second
    first, second = (json.loads((f / "run.json").read_text()) for f in folders)
    assert first["images"] == second["images"] and first["images"]["channel_mean"]
    assert first["options"] == second["options"]
    for how in ("all", "all_but_ids", "shrink"):
        schema = started_schema(Schema.load(data), started["hccm"].schema, how)
        # Training teaches the model how many negatives there are.
        assert schema.negative_keep_rate == 0.25
        for feature in floats:
            assert schema[feature["name"]].mean == shop.schema[feature["name"]].mean


def test_training_goes_on(shop, fitted, runs, tmp_path):
    warm = _estimator("din", shop, epochs=1, seed=1, warm_start_from=runs["din"])
    warm.fit(shop.data)
    steps = -(-DataFolder(shop.data).num_impressions("train") // 128)
    # The optimizer's state is not taken over.
    assert int(warm.model_.optimizer.iterations) == steps
    before, after = (
        e.evaluate(shop.data, "train")["log_loss"] for e in (fitted["din"], warm)
    )
    assert after < before - 0.01
    # A run that was started is a run that can be started from.
    warm.save(tmp_path)
    again = _estimator("din", shop, epochs=0, warm_start_from=tmp_path).fit(shop.data)
    np.testing.assert_array_equal(
        again.predict_proba(shop.data), warm.predict_proba(shop.data)
    )


def test_all_keeps_the_old_ids(shop, started):
    today = _of_another_day(shop.schema)
    today = _with(today, **{n: {"frequency": 7.5} for n in today.vocabularies})
    assert started_schema(today, started["din"].schema, "all_but_ids") == today
    both = started_schema(today, started["din"].schema, "all")
    for name, keys in both.vocabularies.items():
        expected = {*today.vocabularies[name].tolist()}
        expected |= {*shop.schema.vocabularies[name].tolist()}
        assert keys.tolist() == sorted(expected)
        assert both[name].size == len(expected)
        assert both[name].frequency == today[name].frequency
        counts = collections.Counter()
        for part in (today, shop.schema):
            seen = zip(part.vocabularies[name], part.counts[name], strict=True)
            counts.update({int(key): int(count) for key, count in seen})
        assert both.counts[name].tolist() == [counts[int(key)] for key in keys]
    assert both.num_rows("item_id") > today.num_rows("item_id")


def test_an_id_of_the_run_keeps_its_key(shop):
    """Today's vocabulary has another id of the same key."""
    one, other = COLLIDING[0]
    key, texts = fingerprint(one), tf.constant([one, other])
    checks = ids.to_checks(texts).numpy()

    def known(check):
        schema = Schema((Feature("brand", "vocabulary", "string", size=1),))
        checks = {"brand": np.array([check])}
        vocabularies = {"brand": np.array([key])}
        return dataclasses.replace(schema, vocabularies=vocabularies, checks=checks)

    def find(schema):
        return (schema.index("brand", texts) == OOV).numpy().tolist()

    run, today = map(known, checks)
    both = started_schema(today, run, "all")
    assert both.num_rows("brand") == 3 and find(both) == [False, True]
    for schemas, common in (((today, run), 2), ((today, today), 3)):
        rows, _ = _common_rows("brand", *schemas)
        assert len(rows) == common


@pytest.mark.parametrize("kind", ["hash", "integer"])
def test_tables_without_keys(shop, tmp_path, kind):
    schema = _with(shop.schema, user_id={"kind": kind, "size": 9, "frequency": 1.0})
    vocabularies = {k: v for k, v in schema.vocabularies.items() if k != "user_id"}
    counts = {k: v for k, v in schema.counts.items() if k != "user_id"}
    schema = dataclasses.replace(schema, vocabularies=vocabularies, counts=counts)
    old, new = (_model("din", schema) for _ in range(2))
    for weight in old.keras_model.weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    old.save(tmp_path)
    run = TrainedModel.load(tmp_path)
    warm_start(new, run, "all")
    for path, value in _values(new).items():
        if not path.endswith("/rates"):  # which follow from the schema
            np.testing.assert_array_equal(value, _values(old)[path], err_msg=path)
    other = _with(schema, user_id={"size": 10})
    with pytest.raises(InputError, match=f"user_id of kind {kind}.*size 9.*size 10"):
        check_same_features(other, run.schema)


def test_other_features_are_an_error(shop, started):
    schema = shop.schema
    named = "^warm_start_from: the run's model has .*the run's schema.json"
    first, *rest = schema.features
    for features in ((*rest, first), tuple(rest), (*schema.features, first)):
        if len(features) > len(schema.features):
            more = dataclasses.replace(first, name="one_more", kind="float")
            features = (*schema.features, more)
        other = dataclasses.replace(schema, features=features)
        with pytest.raises(InputError, match=named):
            check_same_features(other, started["din"].schema)
    other = _with(schema, item_id={"dtype": "string"})
    with pytest.raises(InputError, match=r"item_id.*\(int64\).*\(string\)"):
        check_same_features(other, started["din"].schema)
    with pytest.raises(InputError, match="^warm_start: one of.*half"):
        started_schema(schema, started["din"].schema, "half")


@pytest.mark.parametrize(
    ("changes", "weight"),
    [
        ({"hidden_units": (9,)}, "ctr/kernel|hidden_0/"),
        ({"hidden_units": (8, 8)}, "hidden_1/"),
        ({"embedding_dim": 5}, "category_embedding/"),
        ({"similarity": "none"}, "hidden_0/kernel|image_similarity"),
        ({"cnn_filters": (5, 8)}, "hybrid_cnn/"),
    ],
)
def test_other_widths_are_an_error(shop, started, changes, weight):
    model = _model("hccm", shop.schema, shop.store, **changes)
    with pytest.raises(InputError, match=f"^warm_start_from: weight ({weight})"):
        warm_start(model, started["hccm"], "all")


def test_another_model_is_an_error(shop, runs, started):
    with pytest.raises(InputError, match="^feature_maps: "):
        check_same_cnn(shop.store, started["din"])
    model = _model("hcm", shop.schema, shop.store)
    with pytest.raises(InputError, match="holds a model hccm.*Received: model hcm"):
        warm_start(model, started["hccm"], "all")
    # So that nothing is trained before it is found.
    estimator = _estimator("hcm", shop, epochs=1, warm_start_from=runs["hccm"])
    with pytest.raises(InputError, match="holds a model hccm.*Received: model hcm"):
        estimator.fit(shop.data)


def test_another_fixed_cnn_is_an_error(shop, runs, started, tmp_path):
    store = dataclasses.replace(
        shop.store, metadata={**shop.store.metadata, "weights_sha256": "0"}
    )
    message = "^feature_maps: the weights_sha256 is 0"
    with pytest.raises(InputError, match=message):
        check_same_cnn(store, started["hccm"])
    maps = tmp_path / "maps"
    shutil.copytree(shop.maps, maps)
    (maps / "feature_maps.json").write_text(json.dumps(store.metadata))
    for epochs in (0, 1):
        estimator = CTREstimator(
            feature_maps=maps, epochs=epochs, warm_start_from=runs["hccm"]
        )
        with pytest.raises(InputError, match=message):
            estimator.fit(shop.data)


@pytest.mark.parametrize("name", ["model.keras", "schema", "run.json"])
def test_a_run_that_is_not_whole_is_an_error(shop, runs, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(runs["din"], folder)
    if name == "schema":
        shutil.rmtree(folder / name)
    else:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    estimator = _estimator("din", shop, epochs=1, warm_start_from=folder)
    with pytest.raises(InputError, match=f"{folder}.*{name}") as error:
        estimator.fit(shop.data)
    assert "\n" not in str(error.value)


def test_saving_replaces_a_run(shop, fitted, runs, tmp_path):
    shutil.copytree(runs["din"], tmp_path, dirs_exist_ok=True)
    fitted["hccm"].save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.keras",
        "schema",
        "run.json",
        "run.flags",
    }
    assert Schema.load(tmp_path / "schema").features == shop.schema.features
    model, run = _model("hccm", shop.schema, shop.store), TrainedModel.load(tmp_path)
    check_same_cnn(shop.store, run)
    warm_start(model, run, "all")


def test_the_models_options_are_those_of_the_run(shop, fitted, runs):
    """None of them has to be said again; settings of training have their defaults."""
    twin = CTREstimator(
        feature_maps=shop.maps, epochs=0, warm_start_from=runs["hccm"]
    ).fit(shop.data)
    assert twin.fitted_.trained.configuration.options == (
        fitted["hccm"].fitted_.trained.configuration.options
    )
    params = twin.get_params()
    assert (params["similarity"], params["cnn_filters"]) == ("cosine", (5, 7))
    assert params["learning_rate"] == 1e-3
    twin.set_params(batch_size=128)
    np.testing.assert_array_equal(
        twin.predict_proba(shop.data), fitted["hccm"].predict_proba(shop.data)
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "din"}, "holds a model hccm. Received: model din"),
        ({"hidden_units": (9,)}, r"^hidden_units: .* is \(8,\). Received: \(9,\)"),
        ({"dropout": 0.5}, "^dropout: .* whose dropout is 0.0. Received: 0.5"),
        ({"max_history": 2}, "^max_history: .* is 8. Received: 2"),
        ({"warm_start": "all_but_ids"}, "^warm_start: .* is all. Received: all_but"),
    ],
)
def test_without_training_no_option_may_change(shop, runs, changed, message):
    estimator = CTREstimator(
        feature_maps=shop.maps, epochs=0, warm_start_from=runs["hccm"], **changed
    )
    with pytest.raises(InputError, match=message):
        estimator.fit(shop.data)


@pytest.mark.parametrize(
    ("how", "expected"),
    [("all", [1, 7, 12]), ("all_but_ids", [7, 10]), ("shrink", [7, 10])],
)
def test_rates_follow_how_often_both_have_seen_an_id(how, expected):
    def of(keys, counts):
        feature = Feature("item_id", "vocabulary", size=2, candidate=True)
        keys, counts = {"item_id": np.array(keys)}, {"item_id": np.array(counts)}
        return Schema((feature,), vocabularies=keys, counts=counts)

    old, new = of([3, 5], [1, 2]), of([4, 5], [7, 10])
    options = {"id_dropout": 4.0}
    began = _model("din", old, **options)
    weight = began.keras_model.get_layer("item_id_embedding").embeddings
    weight.assign(weight + 1)
    schema = started_schema(new, old, how)
    model = _model("din", schema, **options)
    warm_start(model, began, how)
    rates = model.keras_model.get_layer("item_id_dropout").rates
    expected = 4 / (4 + np.array(expected))
    np.testing.assert_allclose(rates, [0, 0, *expected], rtol=1e-6)
    rows = np.asarray(model.keras_model.get_layer("item_id_embedding").embeddings)
    assert (rows[-1] == np.asarray(weight)[-1]).all() == (how == "all")
