import copy
import dataclasses
import pickle
import shutil

import joblib
import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import hccm_tf
from hccm_tf import CTREstimator
from hccm_tf.configuration import readable
from hccm_tf.errors import InputError
from hccm_tf.estimator import PARAMETERS
from hccm_tf.metrics import evaluate_predictions
from hccm_tf.models import MODELS
from tests import processes
from tests.conftest import tiny
from tests.untrained import fit_untrained

NOT_FITTED_ON_A_FRAME = "^X: .*after fit on a data frame; python -m hccm_tf.predict "


@pytest.fixture(scope="module")
def on_frames(shop):
    """`hcm` fitted on the shop's first two splits as a data frame."""
    fitted = shop.impressions[shop.impressions.split != "test"]
    return CTREstimator(
        "hcm",
        feature_maps=shop.maps,
        items=shop.items,
        epochs=1,
        batch_size=128,
        learning_rate=1e-2,
        **tiny("hcm", max_history=8),
    ).fit(fitted)


def _later(shop):
    return shop.impressions[shop.impressions.split == "test"].drop(columns="split")


def test_parameters():
    estimator = CTREstimator("din", epochs=3, dropout=0.2)
    twin = clone(estimator)
    assert twin is not estimator
    assert twin.get_params() == estimator.get_params()
    assert twin.get_params()["epochs"] == 3
    assert twin.set_params(model="hcm", seed=4) is twin
    found = twin.get_params()
    assert (found["model"], found["seed"], found["dropout"]) == ("hcm", 4, 0.2)
    assert twin.model == "hcm" and estimator.model == "din"
    assert estimator.get_params()["seed"] == 0
    with pytest.raises(ValueError, match="epoch"):
        twin.set_params(epoch=1)
    # It is as it was.
    assert twin.get_params() == found
    assert "dropout=0.2" in repr(estimator) and "model='din'" in repr(estimator)


def test_parameters_are_all_that_the_model_reads():
    for model in MODELS.values():
        options = {f.name: f.default for f in dataclasses.fields(model.Options)}
        found = CTREstimator(model.name).get_params()
        assert options.items() <= found.items()
        assert set(found) == {*readable(model), *PARAMETERS}
    assert CTREstimator("din").get_params(deep=False).keys() == PARAMETERS.keys()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("din", {"cnn_filters": (4, 4)}, "din does not read cnn_filters. It reads: "),
        ("base", {"products": True}, "base does not read products. It reads: "),
        ("din", {"model_options": {}}, "din does not read model_options. It reads"),
        ("din", {"shuffle_images": True}, "din does not read shuffle_images"),
        ("din", {"dropout": 2}, "dropout: a number from 0 to 1. Received: 2"),
        ("din", {"epochs": -1}, "epochs: an integer from 0 on. Received: -1"),
        ("deep", {}, "model is one of .*deep"),
        ("trees", {}, "model trees: train_main.py trains it"),
    ],
)
def test_what_is_no_option_is_an_error_at_fit(shop, model, options, message):
    estimator = CTREstimator(model, **options)
    # A frame is not looked at before.
    for data in (shop.data, "no frame", shop.impressions):
        with pytest.raises(InputError, match=message) as error:
            estimator.fit(data)
        assert "\n" not in str(error.value)


def test_maps_that_lack_are_said_before_the_frame_is_read(shop):
    with pytest.raises(InputError, match="^feature_maps: model hccm needs the folder"):
        CTREstimator("hccm").fit(shop.impressions)


def test_a_fit_that_fails_leaves_the_fit_before(shop, on_frames):
    twin = copy.copy(on_frames)
    before = vars(twin).copy()
    twin.options = {**twin.options, "learning_rate": 1e30}
    with pytest.raises(FloatingPointError):
        twin.fit(shop.impressions[shop.impressions.split != "test"])
    for name in ("frames_", "fitted_", "validation_metrics_"):
        assert getattr(twin, name) is before[name], name


def test_a_repr_fits_a_screen(shop):
    estimator = CTREstimator("din", items=shop.items, epochs=3, verbose=False)
    text = "CTREstimator(model='din', items=<60 rows>, verbose=False, epochs=3)"
    assert repr(estimator) == text
    assert repr(CTREstimator()) == "CTREstimator()"


def test_not_fitted(shop):
    for method in ("predict", "predict_proba", "evaluate", "export"):
        with pytest.raises(NotFittedError):
            getattr(CTREstimator("din"), method)(shop.data)


def test_data_folder(shop, fitted):
    estimator = fitted["hccm"]
    p = estimator.predict_proba(shop.data)
    assert p.shape == (300, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(estimator.predict(shop.data), p[:, 1] >= 0.5)
    assert estimator.classes_.tolist() == [0, 1]
    test = shop.log[shop.log.split == "test"]
    expected = evaluate_predictions(test.label, p[:, 1], test.user_id)
    assert estimator.evaluate(shop.data) == pytest.approx(expected)
    validation = estimator.evaluate(shop.data, split="validation")
    assert validation == pytest.approx(estimator.validation_metrics_)
    assert validation["impressions"] == 150
    training = estimator.fitted_.training
    assert training["epochs"] == 1 and training["seconds"] > 0


def test_batch_size_does_not_change_predictions(shop, fitted):
    estimator = fitted["hccm"]
    p = estimator.predict_proba(shop.data)
    try:
        estimator.set_params(batch_size=7)
        other = estimator.predict_proba(shop.data)
    finally:
        estimator.set_params(batch_size=128)
    np.testing.assert_allclose(other, p, atol=1e-5)


def test_frame_equals_the_data_folder(shop, on_frames):
    # The schema of the fitted frame is that of the training split only.
    p = on_frames.predict_proba(_later(shop))
    direct = on_frames.predict_proba(shop.data)
    np.testing.assert_allclose(p, direct, atol=1e-5)


def test_rows_come_back_in_their_order(shop, on_frames):
    later = _later(shop)
    p = on_frames.predict_proba(later)
    assert len(p) == len(later) and p[:, 1].std() > 1e-4
    order = np.random.default_rng(0).permutation(len(later))
    shuffled = on_frames.predict_proba(later.iloc[order])
    np.testing.assert_allclose(shuffled, p[order], atol=1e-5)


@pytest.fixture(scope="module")
def on_requests(request_shop):
    """`base` fitted on a data frame of requests with weights."""
    log = request_shop.impressions
    estimator = CTREstimator(
        "base", items=request_shop.items, epochs=2, **tiny("base", max_history=8)
    )
    return estimator.fit(log[log.split != "test"])


def _later_requests(request_shop):
    """Rows of several impressions of one user and moment, strewn over the frame."""
    log = request_shop.impressions
    later = log[log.split == "test"].drop(columns="split")
    assert later.duplicated(["user_id", "timestamp"]).sum() > 50
    assert not later.index.is_monotonic_decreasing
    return later.iloc[::-1]


def test_rows_of_requests_come_back_in_their_order(request_shop, on_requests):
    later = _later_requests(request_shop)
    frame = on_requests.predictions(later)
    assert list(frame) == ["row", "user_key", "label", "weight", "ctr"]
    np.testing.assert_array_equal(frame.row, np.arange(len(later)))
    np.testing.assert_array_equal(frame.user_key, later.user_id)
    np.testing.assert_array_equal(frame.label, later.label)
    np.testing.assert_array_equal(frame.weight, later.weight)
    assert frame.ctr.std() > 1e-3
    # Each impression a request of its own.
    alone = on_requests.predictions(later.assign(request_id=np.arange(len(later))))
    pd.testing.assert_frame_equal(frame, alone, atol=1e-6)
    p = on_requests.predict_proba(later.drop(columns="label"))[:, 1]
    for row in (0, len(later) // 2, -1):
        one = on_requests.predict_proba(later.drop(columns="label").iloc[[row]])
        np.testing.assert_allclose(one[0, 1], p[row], atol=1e-6)


def test_weights_of_a_frame_are_in_its_metrics(request_shop, on_requests):
    later = _later_requests(request_shop)
    p = on_requests.predict_proba(later)[:, 1]
    known = {"sample_weight": later.weight}
    auc = on_requests.evaluate(later)["auc"]
    assert auc == pytest.approx(roc_auc_score(later.label, p, **known))
    # Without them all count alike.
    later = later.drop(columns="weight")
    np.testing.assert_array_equal(on_requests.predict_proba(later)[:, 1], p)
    auc = on_requests.evaluate(later)["auc"]
    assert auc == pytest.approx(roc_auc_score(later.label, p))


def test_a_frame_may_have_weights_and_requests_when_the_fitted_one_has_not(
    request_shop, on_requests
):
    """And the other way round. Ids are no numbers that a float64 holds."""
    log = request_shop.impressions
    ids = log.groupby(["user_id", "timestamp"]).ngroup() + 2**60
    named, plain = log.assign(request_id=ids), log.drop(columns="weight")
    for fitted, scored in ((named, plain), (plain, named)):
        twin = fit_untrained(clone(on_requests), fitted[log.split != "test"])
        later = scored[log.split == "test"].drop(columns="split")
        frame = twin.predictions(later)
        np.testing.assert_array_equal(frame.user_key, later.user_id)
        np.testing.assert_array_equal(frame.weight, later.get("weight", 1.0))
        # What it was fitted on, too, whose clicks are in the histories.
        again = fitted[log.split != "test"].drop(columns=["split", "label"])
        assert len(twin.predictions(again)) == len(again)


def test_labels_of_the_scored_frame_are_not_looked_at(shop, on_frames):
    later = _later(shop)
    without = on_frames.predict_proba(later.drop(columns="label"))
    alone = [
        on_frames.predict_proba(later.drop(columns="label").iloc[[row]])[0]
        for row in (len(later) // 2, -1)
    ]
    np.testing.assert_allclose(
        without[[len(later) // 2, -1]], np.stack(alone), atol=1e-5
    )
    # A row's own label and those of later rows tell it nothing.
    first = later.iloc[[0]]
    one = on_frames.predict_proba(first.assign(label=1))
    np.testing.assert_allclose(one, on_frames.predict_proba(first.assign(label=0)))


def test_unknown_items_are_an_error(shop, on_frames):
    later = _later(shop).iloc[:5].copy()
    later.iloc[2, later.columns.get_loc("item_id")] = 424_242
    with pytest.raises(InputError, match="item_id: 1 impressions.*424242"):
        on_frames.predict_proba(later)


def test_what_is_no_frame_is_an_error_of_one_line(shop, on_frames):
    later = _later(shop)
    for predict in (on_frames.predict_proba, on_frames.predict, on_frames.evaluate):
        for X in (later.to_numpy(), later.to_dict("list"), None):
            with pytest.raises(InputError, match="^X: a pandas data frame"):
                predict(X)
    with pytest.raises(InputError, match="^X: no column label. Received columns: user"):
        on_frames.evaluate(later.drop(columns="label"))
    with pytest.raises(InputError, match="^X: no column hour. Received.*, Hour"):
        on_frames.predict_proba(later.rename(columns={"hour": "Hour"}))
    with pytest.raises(InputError, match="^X: one impression or more"):
        on_frames.predict_proba(later[:0])
    twin = clone(on_frames)
    with pytest.raises(InputError, match="^X: a pandas data frame.*Received: ndarray"):
        twin.fit(later.to_numpy())


def test_an_estimator_that_says_nothing(shop, on_frames, capfd):
    """`on_frames` speaks by default, and a frame that is scored is built, too."""
    for verbose in (True, False):
        capfd.readouterr()
        on_frames.set_params(verbose=verbose).predict_proba(_later(shop))
        assert bool(capfd.readouterr().out) == verbose
    on_frames.set_params(verbose=True)


def test_labels_as_y(shop, on_frames, monkeypatch):
    """It is fitted on the same data, to the last byte."""
    frame = shop.impressions[shop.impressions.split != "test"]
    folders = []

    def fit_on(configuration, strategy):
        folders.append(configuration.data_dir)
        return on_frames.fitted_

    monkeypatch.setattr("hccm_tf.estimator.fit", fit_on)
    twin = clone(on_frames).fit(frame.drop(columns="label"), frame.label.to_numpy())
    assert folders == [twin.frames_.training] != [on_frames.frames_.training]
    found, expected = (
        {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (twin.frames_.training, on_frames.frames_.training)
    )
    assert found == expected and any("tfrecord" in name for name in found)


def test_training_needs_tensorflow(shop, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(InputError, match="KERAS_BACKEND=jax: .*=tensorflow"):
        CTREstimator("din").fit(shop.data)


def test_frames_need_the_catalogue(shop):
    with pytest.raises(InputError, match="items"):
        CTREstimator("din").fit(shop.impressions)


def test_export_after_frames(on_frames, tmp_path):
    assert (on_frames.export(tmp_path) / "saved_model.pb").is_file()


def test_max_history(shop):
    estimator = CTREstimator("base", **tiny("base", max_history=2))
    assert fit_untrained(estimator, shop.data).schema_.max_history == 2
    with pytest.raises(InputError, match="max_history"):
        CTREstimator("base", max_history=9).fit(shop.data)


@pytest.mark.parametrize("keep", [-100, 5, 0, None], ids=str)
def test_a_truncated_or_missing_file_is_an_error_of_one_line(shop, tmp_path, keep):
    shutil.copytree(shop.data, tmp_path / "data")
    (file,) = (tmp_path / "data").glob("*-train.tfrecord-*")
    content = file.read_bytes()
    file.unlink()
    if keep is not None:
        file.write_bytes(content[:keep])
    estimator = CTREstimator("base", epochs=1, **tiny("base"))
    with pytest.raises(InputError, match="a TFRecord is missing, truncated.*validate"):
        estimator.fit(tmp_path / "data")


def test_a_category_without_a_part_is_an_error_of_one_line(shop):
    options = {"channel_attention": False, "prior_channel": False}
    estimator = CTREstimator("hccm", shop.maps, **tiny("hccm", **options))
    with pytest.raises(InputError, match="model hccm: .*prior_channel=False"):
        estimator.fit(shop.data)


@pytest.fixture(scope="module")
def controls(shop):
    """`hccm` before its first step, of shuffled images, and of shuffled categories."""
    options = tiny("hccm", batch_size=256)
    return {
        name: fit_untrained(
            CTREstimator("hccm", shop.maps, **options, **{name: True}), shop.data
        )
        for name in ("shuffle_images", "shuffle_categories")
    }


@pytest.mark.parametrize("control", ["shuffle_images", "shuffle_categories"])
def test_a_control_is_not_exported(controls, tmp_path, control):
    with pytest.raises(InputError, match="a control"):
        controls[control].export(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_controls_shuffle_what_the_model_is_given(shop, fitted, controls):
    def first_batch(estimator):
        batches = dataclasses.replace(estimator.fitted_.batches, batch_size=256)
        return next(iter(batches.dataset("test")))[0]

    plain = first_batch(fitted["hccm"])
    for control, shuffled in (
        ("shuffle_images", "image_map"),
        ("shuffle_categories", "image_category"),
    ):
        batch = first_batch(controls[control])
        assert set(batch) == set(plain)
        for name, values in batch.items():
            same = np.array_equal(values, plain[name])
            assert same == (name != shuffled), (control, name)


def test_a_pickled_estimator_predicts_alike(shop, on_frames, fitted, tmp_path):
    """Here, by pickle and by joblib, and in another process."""
    later = _later(shop)
    expected = on_frames.predict_proba(later)
    twin = pickle.loads(pickle.dumps(on_frames))
    np.testing.assert_array_equal(twin.predict_proba(later), expected)
    assert twin.get_params(deep=False).keys() == on_frames.get_params(False).keys()
    joblib.dump(fitted["hccm"], tmp_path / "estimator.joblib")
    joblib.dump((on_frames, later), tmp_path / "frames.joblib")
    script = (
        "import sys, joblib, numpy as np\n"
        "data, folder = sys.argv[1:]\n"
        "of_data = joblib.load(f'{folder}/estimator.joblib').predict_proba(data)\n"
        "estimator, later = joblib.load(f'{folder}/frames.joblib')\n"
        "of_frames = estimator.predict_proba(later)\n"
        "np.savez(f'{folder}/answers.npz', data=of_data, frames=of_frames)\n"
    )
    processes.run(["-c", script, shop.data, tmp_path], check=True)
    answers = np.load(tmp_path / "answers.npz")
    np.testing.assert_array_equal(answers["frames"], expected)
    here = fitted["hccm"].predict_proba(shop.data)
    np.testing.assert_array_equal(answers["data"], here)


def test_a_grid_search_in_two_processes(shop):
    """It trains as a fit by hand does, and scores by the labels that it is given."""
    log = shop.impressions.drop(columns="split").iloc[:600]
    X, y = log.drop(columns="label"), log.label.to_numpy()
    cv = [(np.arange(400), np.arange(400, 600))]
    estimator = CTREstimator(
        "base", items=shop.items, epochs=1, batch_size=128, **tiny("base")
    )
    search = GridSearchCV(
        estimator, {"dropout": [0.0, 0.5]}, scoring="roc_auc", cv=cv, n_jobs=2
    )
    search.fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_params_ == {"dropout": [0.0, 0.5][scores.argmax()]}
    alone = clone(estimator).set_params(dropout=0.5).fit(X[:400], y[:400])
    expected = roc_auc_score(y[400:], alone.predict_proba(X[400:])[:, 1])
    assert scores[1] == pytest.approx(expected, abs=0.02)
    assert scores[0] != scores[1]
    assert search.best_estimator_.get_params()["dropout"] in (0.0, 0.5)
    assert search.predict(X[:5]).shape == (5,)


class Recent:
    """A step before the estimator in a pipeline: rows from a time on."""

    def __init__(self, start):
        self.start = start

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X[X.timestamp >= self.start]


def test_a_pipeline(shop):
    estimator = CTREstimator("base", items=shop.items, **tiny("base"))
    log = shop.impressions[shop.impressions.split != "test"]
    start = log.timestamp.quantile(0.5)
    pipeline = make_pipeline(Recent(start), estimator)
    pipeline.set_params(ctrestimator__epochs=1, ctrestimator__dropout=0.1)
    assert pipeline.get_params()["ctrestimator__dropout"] == 0.1
    pipeline.fit(log)
    p = pipeline.predict_proba(_later(shop))
    expected = pipeline[-1].predict_proba(_later(shop))
    np.testing.assert_array_equal(p, expected)
    assert p.shape == (300, 2) and pipeline.classes_.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_load_of_what_was_fitted_on_a_folder(shop, fitted, tmp_path, name):
    estimator = fitted[name]
    estimator.save(tmp_path / "run")
    for loaded in (
        CTREstimator.load(tmp_path / "run"),
        hccm_tf.load_run(str(tmp_path / "run")),
    ):
        p = loaded.predict_proba(shop.data)
        np.testing.assert_array_equal(p, estimator.predict_proba(shop.data))
        expected = {**estimator.get_params(), "feature_maps": str(shop.maps)}
        assert loaded.get_params() == expected
        assert loaded.classes_.tolist() == [0, 1]
        assert loaded.schema_.features == estimator.schema_.features
        assert loaded.evaluate(shop.data) == estimator.evaluate(shop.data)
    with pytest.raises(InputError, match=NOT_FITTED_ON_A_FRAME):
        loaded.predict_proba(_later(shop))
    # What was saved once can be saved again, and trained.
    loaded.save(tmp_path / "again")
    again = CTREstimator.load(tmp_path / "again")
    np.testing.assert_array_equal(again.predict_proba(shop.data), p)
    first = loaded.set_params(epochs=1, seed=3).fit(shop.data)
    assert not np.array_equal(first.predict_proba(shop.data), p)


def test_load_of_what_was_fitted_on_frames(shop, on_frames, tmp_path):
    on_frames.save(tmp_path / "run")
    loaded = CTREstimator.load(tmp_path / "run")
    later = _later(shop)
    for frame in (later, later.drop(columns="label").iloc[::-7]):
        np.testing.assert_array_equal(
            loaded.predict_proba(frame), on_frames.predict_proba(frame)
        )
    validation = loaded.evaluate(loaded.frames_.training, "validation")
    assert validation == on_frames.validation_metrics_
    assert (loaded.export(tmp_path / "export") / "saved_model.pb").is_file()
    with pytest.raises(InputError, match="item_id: 1 impressions.*424242"):
        loaded.predict_proba(later.iloc[:1].assign(item_id=424_242))


def test_a_folder_that_is_saved_again_has_no_frames(shop, fitted, on_frames, tmp_path):
    on_frames.save(tmp_path)
    fitted["din"].save(tmp_path)
    loaded = CTREstimator.load(tmp_path)
    assert loaded.model == "din" and loaded.frames_ is None
    p = loaded.predict_proba(shop.data)
    np.testing.assert_array_equal(p, fitted["din"].predict_proba(shop.data))


def test_histories_of_an_earlier_fit_are_not_joined(shop, on_frames):
    estimator = copy.copy(on_frames).fit(shop.data)
    with pytest.raises(InputError, match=NOT_FITTED_ON_A_FRAME):
        estimator.predict_proba(_later(shop))
    assert estimator.predict_proba(shop.data).shape == (300, 2)
