import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

from hccm_tf import CTREstimator
from hccm_tf.data.feature_kinds import OOV, RESERVED
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.models import build_model
from hccm_tf.training.warm_start import started_maps, started_schema, warm_start
from tests.conftest import TINY
from tests.reference import fingerprint

OPTIONS = {**TINY, "similarity": "cosine"}


@pytest.fixture(scope="module")
def runs(fitted, tmp_path_factory):
    """Folders of the fitted models."""
    folders = {name: tmp_path_factory.mktemp(name) / "run" for name in fitted}
    for name, folder in folders.items():
        fitted[name].save(folder)
    return folders


def _model(name, schema, store, **changes):
    keras.utils.set_random_seed(7)
    options = {**OPTIONS, **changes}
    if name != "din":
        options.update(
            feature_map_shape=store.shape,
            channel_mean=store.channel_mean,
            channel_std=store.channel_std,
        )
    return build_model(name, schema, **options)


def _estimator(model, shop, **arguments):
    return CTREstimator(
        model,
        feature_maps=shop.maps,
        batch_size=128,
        learning_rate=1e-2,
        model_options=OPTIONS,
        **arguments,
    )


def _values(model):
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
    schema = dataclasses.replace(schema, vocabularies=keys)
    return _with(schema, **{name: {"size": len(k)} for name, k in keys.items()})


def _expected_table(old, new, old_keys, new_keys):
    """Row by row, through a dict; `new` are the initial values."""
    row_of = {key: old[RESERVED + place] for place, key in enumerate(old_keys)}
    rows = [row_of.get(key, new[RESERVED + p]) for p, key in enumerate(new_keys)]
    return np.stack([old[0], old[OOV], *rows])


@pytest.mark.parametrize("how", ["all", "all_but_ids"])
@pytest.mark.parametrize("name", ["din", "hccm"])
def test_every_weight(shop, fitted, runs, name, how):
    schema = _of_another_day(shop.schema)
    store = None if name == "din" else shop.store
    model = _model(name, schema, store)
    initial, old = _values(model), _values(fitted[name].model_)
    warm_start(model, schema, runs[name], how)
    values = _values(model)
    assert set(values) == set(old)
    tables = {f"{n}_embedding/embeddings": n for n in shop.schema.vocabularies}
    if name == "hccm":
        tables["hybrid_cnn/prior/embedding/embeddings"] = "category"
    assert set(tables) <= set(values)
    for path, value in values.items():
        if path not in tables:
            expected = old[path]
        elif how == "all_but_ids" and "prior" not in path:
            expected = initial[path]
        else:
            keys = (s.vocabularies[tables[path]] for s in (shop.schema, schema))
            expected = _expected_table(old[path], initial[path], *keys)
        np.testing.assert_array_equal(value, expected, err_msg=path)
    hidden = next(path for path in values if "hidden_0" in path)
    assert (values[hidden] != initial[hidden]).any()


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_without_training_it_is_the_model_of_the_run(shop, fitted, runs, name):
    twin = _estimator(name, shop, epochs=0, warm_start_from=runs[name]).fit(shop.data)
    np.testing.assert_array_equal(
        twin.predict_proba(shop.data), fitted[name].predict_proba(shop.data)
    )
    assert twin.validation_metrics_ == fitted[name].validation_metrics_
    with pytest.raises(InputError, match="--epochs=0.*--warm_start_from"):
        _estimator(name, shop, epochs=0).fit(shop.data)


def test_what_is_standardised_keeps_its_scale(shop, fitted, runs, tmp_path):
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
    for name, factor in (("channel_mean", -1), ("channel_std", 3)):
        metadata[name] = [factor * value for value in metadata[name]]
    (maps / "feature_maps.json").write_text(json.dumps(metadata))
    twin = CTREstimator(
        "hccm", maps, epochs=0, warm_start_from=runs["hccm"], model_options=OPTIONS
    ).fit(data)
    np.testing.assert_array_equal(
        twin.predict_proba(data), fitted["hccm"].predict_proba(shop.data)
    )
    twin.save(tmp_path / "again")
    for name in ("feature_maps.json", "schema/schema.json"):
        first, second = (folder / name for folder in (runs["hccm"], tmp_path / "again"))
        assert first.read_text() == second.read_text()
    for how in ("all", "all_but_ids"):
        started = started_schema(Schema.load(data), runs["hccm"], how)
        # Training teaches the model how many negatives there are.
        assert started.negative_keep_rate == 0.25
        for feature in floats:
            assert started[feature["name"]].mean == shop.schema[feature["name"]].mean


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


def test_all_keeps_the_old_ids(shop, runs):
    today = _of_another_day(shop.schema)
    assert started_schema(today, runs["din"], "all_but_ids") == today
    both = started_schema(today, runs["din"], "all")
    for name, keys in both.vocabularies.items():
        expected = {*today.vocabularies[name].tolist()}
        expected |= {*shop.schema.vocabularies[name].tolist()}
        assert keys.tolist() == sorted(expected)
        assert both[name].size == len(expected)
        assert both[name].frequency == today[name].frequency
    assert both.num_rows("item_id") > today.num_rows("item_id")


@pytest.mark.parametrize("kind", ["hash", "integer"])
def test_tables_without_keys(shop, tmp_path, kind):
    schema = _with(shop.schema, user_id={"kind": kind, "size": 9, "frequency": 1.0})
    vocabularies = {k: v for k, v in schema.vocabularies.items() if k != "user_id"}
    schema = dataclasses.replace(schema, vocabularies=vocabularies)
    old, new = (_model("din", schema, None) for _ in range(2))
    for weight in old.weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    estimator = _estimator("din", shop)
    estimator.model_, estimator.schema_, estimator.feature_maps_ = old, schema, None
    estimator.save(tmp_path)
    warm_start(new, schema, tmp_path, "all")
    for path, value in _values(new).items():
        np.testing.assert_array_equal(value, _values(old)[path], err_msg=path)
    other = _with(schema, user_id={"size": 10})
    with pytest.raises(InputError, match=f"user_id of kind {kind}.*size 9.*size 10"):
        started_schema(other, tmp_path, "all")


def test_other_features_are_an_error(shop, runs):
    schema = shop.schema
    named = rf"--warm_start_from={runs['din']}.*--schema="
    first, *rest = schema.features
    for features in ((*rest, first), tuple(rest), (*schema.features, first)):
        if len(features) > len(schema.features):
            more = dataclasses.replace(first, name="one_more", kind="float")
            features = (*schema.features, more)
        other = dataclasses.replace(schema, features=features)
        with pytest.raises(InputError, match=named):
            started_schema(other, runs["din"], "all")
    other = _with(schema, item_id={"dtype": "string"})
    with pytest.raises(InputError, match=r"item_id.*\(int64\).*\(string\)"):
        started_schema(other, runs["din"], "all")
    with pytest.raises(InputError, match="--warm_start is one of.*half"):
        started_schema(schema, runs["din"], "half")


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
def test_other_widths_are_an_error(shop, runs, changes, weight):
    model = _model("hccm", shop.schema, shop.store, **changes)
    with pytest.raises(InputError, match=rf"--warm_start_from=.*weight ({weight})"):
        warm_start(model, shop.schema, runs["hccm"], "all")


def test_another_model_is_an_error(shop, runs):
    with pytest.raises(InputError, match="--feature_maps"):
        started_maps(shop.store, runs["din"])
    model = _model("hcm", shop.schema, shop.store)
    with pytest.raises(InputError, match="holds a model hccm.*--model=hcm"):
        warm_start(model, shop.schema, runs["hccm"], "all")


def test_another_fixed_cnn_is_an_error(shop, runs):
    store = dataclasses.replace(
        shop.store, metadata={**shop.store.metadata, "weights_sha256": "0"}
    )
    with pytest.raises(InputError, match="--feature_maps.*weights_sha256.*is 0"):
        started_maps(store, runs["hccm"])


@pytest.mark.parametrize("name", ["model.keras", "schema", "feature_maps.json"])
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
        "feature_maps.json",
    }
    assert Schema.load(tmp_path / "schema").features == shop.schema.features
    model = _model("hccm", shop.schema, shop.store)
    started_maps(shop.store, tmp_path)
    warm_start(model, shop.schema, tmp_path, "all")
