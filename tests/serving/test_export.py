import functools
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.dataset import Batches
from hccm_tf.data.schema import Schema
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.serving.export import export
from hccm_tf.serving.versions import next_version
from hccm_tf.training.evaluation import infer_function, predict
from tests.untrained import untrained

NAMES = ("din", "hccm")
# Loads SavedModels as a server would: without the package.
CLIENT = """
import sys
import numpy as np
import tensorflow as tf
for name, version in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    serve = tf.saved_model.load(version).signatures["serving_default"]
    request = np.load(f"{name}.npz", allow_pickle=True)
    answer = serve(**{name: tf.constant(request[name].tolist(), request[name].dtype
                      if request[name].dtype != object else tf.string)
                      for name in request.files})
    np.save(f"{name}.npy", answer["ctr"].numpy())
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"hccm_tf", "tfrecords_tools", "tests"}, loaded
"""
COLUMNS = {
    "user_id": np.int64,
    "item_id": np.int64,
    "hour": np.int64,
    "image": object,
}
HISTORY = ("item_id", "image")


def _request(shop, rows, width, with_images):
    """Raw columns of impressions and their histories, garbage behind each history."""
    log = shop.log
    request = {
        name: log[name].iloc[rows].to_numpy(dtype) for name, dtype in COLUMNS.items()
    }
    lengths = np.array([len(log.history[row]) for row in rows])
    request["history_length"] = lengths
    for name in HISTORY:
        if name == "image" and not with_images:
            continue
        dtype = COLUMNS[name]
        values = np.full((len(rows), width), "junk" if dtype is object else 77, dtype)
        for place, row in enumerate(rows):
            clicks = log[name].iloc[log.history[row]]
            values[place, : len(clicks)] = clicks
        request[f"history_{name}"] = values
    return request


@functools.cache
def _serve(version):
    function = tf.saved_model.load(str(version)).signatures["serving_default"]
    dtypes = {name: spec.dtype for name, spec in _signature(function).items()}

    def serve(request):
        tensors = {k: tf.constant(v.tolist(), dtypes[k]) for k, v in request.items()}
        return function(**tensors)["ctr"].numpy()

    return function, serve


def _signature(function):
    return function.structured_input_signature[1]


@pytest.fixture(scope="module")
def raw(shop):
    """Name of a model → a request."""
    rows = np.flatnonzero(shop.log.split == "test")
    return {
        name: _request(shop, rows, width=11, with_images=name == "hccm")
        for name in NAMES
    }


@pytest.fixture(scope="module", params=NAMES)
def exported(request, raw, fitted, versions):
    return tuple(of[request.param] for of in (fitted, versions, raw))


def test_a_process_without_the_package_answers_like_the_estimators(
    raw, fitted, versions, shop, tmp_path
):
    for name, request in raw.items():
        np.savez(tmp_path / f"{name}.npz", **request)
    words = [word for name in NAMES for word in (name, str(versions[name]))]
    command = [sys.executable, "-c", CLIENT, *words]
    subprocess.run(command, cwd=tmp_path, check=True)
    for name in NAMES:
        expected = fitted[name].predict_proba(shop.data)[:, 1]
        assert expected.std() > 1e-3
        answer = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_signature_names_the_columns_of_the_log(exported):
    function, _ = _serve(exported[1])
    assert set(_signature(function)) == set(exported[2])


def test_garbage_beyond_the_history_changes_nothing(exported):
    _, serve = _serve(exported[1])
    request = {name: value[:40] for name, value in exported[2].items()}
    before = serve(request)
    beyond = np.arange(11) >= request["history_length"][:, None]
    assert beyond.any(axis=1).all() and not beyond.all()
    other = dict(request)
    for name in ("history_item_id", "history_image"):
        if name in other:
            other[name] = other[name].copy()
            values = request[name][~beyond]
            other[name][beyond] = np.resize(values, beyond.sum())
            assert (other[name] != request[name]).any()
    np.testing.assert_allclose(serve(other), before, atol=1e-6)
    narrow = {
        name: value[:, :8] if value.ndim == 2 else value
        for name, value in request.items()
    }
    np.testing.assert_allclose(serve(narrow), before, atol=1e-6)
    longer = {**request, "history_length": request["history_length"] + 1}
    assert np.abs(serve(longer) - before).max() > 1e-6
    beyond_all = {**request, "history_length": request["history_length"] + 11}
    with pytest.raises(tf.errors.InvalidArgumentError, match="history_length"):
        serve(beyond_all)


def test_only_the_newest_clicks_count(exported, shop):
    estimator, version, request = exported
    _, serve = _serve(version)
    full = np.flatnonzero(request["history_length"] == 8)[:10]
    request = {name: value[full] for name, value in request.items()}
    before = serve(request)
    older = dict(request)
    for name, value in request.items():
        if value.ndim == 2:
            shifted = np.roll(value, 3, axis=1)
            shifted[:, :3] = value[:, 3:6]
            older[name] = shifted
    older["history_length"] = request["history_length"] + 3
    np.testing.assert_allclose(serve(older), before, atol=1e-6)


def test_unknown_and_empty_values_give_finite_answers(exported):
    _, serve = _serve(exported[1])
    request = {name: value[:6].copy() for name, value in exported[2].items()}
    known = serve(request)
    request["user_id"][0] = -(2**63)
    request["item_id"][0] = 2**63 - 1
    request["image"][1] = "nowhere.jpg"
    request["image"][2] = ""
    request["history_item_id"][3] = 2**62
    request["history_length"][4] = 0
    request["item_id"][5] = -7
    answer = serve(request)
    assert np.isfinite(answer).all() and ((answer >= 0) & (answer <= 1)).all()
    assert (np.abs(answer - known) > 0).sum() >= 4
    empty = {
        name: value[:, :0] if value.ndim == 2 else value
        for name, value in request.items()
    }
    empty["history_length"] = np.zeros(6, np.int64)
    assert np.isfinite(serve(empty)).all()


def test_an_unknown_image_is_no_image(exported, fitted):
    if exported[0] is fitted["din"]:
        pytest.skip("the model has no images")
    _, serve = _serve(exported[1])
    request = {name: value[:6] for name, value in exported[2].items()}
    answers = []
    for image in ("", "nowhere.jpg", "unheard-of.jpg"):
        answers.append(serve({**request, "image": np.full(6, image, object)}))
    np.testing.assert_array_equal(answers[1:], [answers[0]] * 2)
    assert np.abs(answers[0] - serve(request)).max() > 1e-6


def test_signatures_are_functions_of_what_is_loaded(exported):
    """Of the inputs as one dict."""
    _, version, request = exported
    function, serve = _serve(version)
    loaded = tf.saved_model.load(str(version))
    dtypes = {name: spec.dtype for name, spec in _signature(function).items()}
    tensors = {k: tf.constant(v.tolist(), dtypes[k]) for k, v in request.items()}
    np.testing.assert_array_equal(
        loaded.serving_default(tensors)["ctr"], serve(request)
    )


def test_the_next_export_is_the_next_version(fitted, tmp_path):
    (tmp_path / "notes").mkdir()
    assert next_version(tmp_path) == tmp_path / "1"
    (tmp_path / "9").mkdir()
    assert fitted["din"].export(tmp_path).name == "10"
    assert not list(tmp_path.glob("*.incomplete*"))


def test_negative_and_string_ids(shop, tmp_path):
    items = shop.items.assign(item_id=-shop.items.item_id - 2**50)
    log = shop.impressions.assign(
        item_id=-shop.impressions.item_id - 2**50,
        user_id="ü" + shop.impressions.user_id.astype(str),
    )
    data, store = tmp_path / "data", shop.store
    build_examples(items, log, data, max_history=8)
    schema = Schema.load(data)
    trained = untrained("hcm", schema, store)
    function, serve = _serve(export(trained, data, store, tmp_path / "model"))
    assert _signature(function)["user_id"].dtype == tf.string
    rows = np.flatnonzero(shop.log.split == "test")
    request = _request(shop, rows, width=9, with_images=True)
    request["user_id"] = log.user_id.to_numpy(object)[rows]
    for name in ("item_id", "history_item_id"):
        request[name] = -request[name] - 2**50
    batches = Batches(data, schema, 256, store)
    expected = predict(infer_function(trained.keras_model), batches, "test").ctr
    assert expected.std() > 1e-3
    np.testing.assert_allclose(serve(request), expected, atol=1e-5)
    vocabulary = pd.read_parquet(tmp_path / "data" / "vocabularies" / "item_id.parquet")
    assert (vocabulary.key < 0).all()
    assert json.loads((tmp_path / "data" / "schema.json").read_text())
