import copy
import shutil

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from hccm_tf import CTREstimator
from hccm_tf.errors import InputError
from hccm_tf.metrics import evaluate_predictions
from tests.conftest import TINY


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
        max_history=8,
        model_options=TINY,
    ).fit(fitted)


def _later(shop):
    return shop.impressions[shop.impressions.split == "test"].drop(columns="split")


def test_parameters():
    estimator = CTREstimator("din", epochs=3, model_options={"dropout": 0.2})
    twin = clone(estimator)
    assert twin is not estimator
    assert twin.get_params() == estimator.get_params()
    assert twin.get_params()["epochs"] == 3
    assert twin.set_params(model="hcm", seed=4) is twin
    assert (twin.model, twin.seed, estimator.model) == ("hcm", 4, "din")
    with pytest.raises(ValueError, match="epoch"):
        twin.set_params(epoch=1)


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
    assert estimator.examples_per_second_ > 0


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


def test_labels_as_y(shop, on_frames):
    frame = shop.impressions[shop.impressions.split != "test"]
    twin = clone(on_frames).fit(frame.drop(columns="label"), frame.label.to_numpy())
    np.testing.assert_allclose(
        twin.predict_proba(_later(shop)),
        on_frames.predict_proba(_later(shop)),
        atol=1e-3,
    )


def test_frames_need_the_catalogue(shop):
    with pytest.raises(InputError, match="items"):
        CTREstimator("din").fit(shop.impressions)


def test_export_after_frames(on_frames, tmp_path):
    assert (on_frames.export(tmp_path) / "saved_model.pb").is_file()


def test_max_history(shop):
    estimator = CTREstimator("base", epochs=1, max_history=2, model_options=TINY)
    assert estimator.fit(shop.data).schema_.max_history == 2
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
    estimator = CTREstimator("base", epochs=1, model_options=TINY)
    with pytest.raises(InputError, match="a TFRecord is missing, truncated.*validate"):
        estimator.fit(tmp_path / "data")


def test_a_category_without_a_part_is_an_error_of_one_line(shop):
    options = {"channel_attention": False, "prior_channel": False}
    estimator = CTREstimator("hccm", shop.maps, model_options={**TINY, **options})
    with pytest.raises(InputError, match="model hccm: .*prior_channel=False"):
        estimator.fit(shop.data)


@pytest.mark.parametrize("control", ["shuffle_images", "shuffle_categories"])
def test_a_control_is_not_exported(fitted, tmp_path, control):
    estimator = copy.copy(fitted["hccm"]).set_params(**{control: True})
    with pytest.raises(InputError, match="a control"):
        estimator.export(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_controls_shuffle_what_the_model_is_given(shop):
    def first_batch(**control):
        estimator = CTREstimator(
            "hccm", shop.maps, epochs=1, model_options=TINY, **control
        )
        estimator.fit(shop.data)
        return next(iter(estimator._dataset(shop.data, "test")))[0]

    plain = first_batch()
    for control, shuffled in (
        ("shuffle_images", "image_map"),
        ("shuffle_categories", "image_category"),
    ):
        batch = first_batch(**{control: True})
        assert set(batch) == set(plain)
        for name, values in batch.items():
            same = np.array_equal(values, plain[name])
            assert same == (name != shuffled), (control, name)
