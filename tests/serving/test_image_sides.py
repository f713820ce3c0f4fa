"""Exports of models that see the images of one side only, `cscnn` among them."""

import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.base import clone

from hccm_tf import CTREstimator
from hccm_tf.data import ids
from hccm_tf.data.image_folder import ImageFolder
from hccm_tf.errors import InputError
from hccm_tf.serving.exported_version import Version
from hccm_tf.serving.refresh import refresh
from hccm_tf.serving.request import Impressions, impressions_request, rank_request
from hccm_tf.training.images import open_images
from tests.conftest import tiny
from tests.serving.asking import ROWS, ask, cut, one_row_each, record_of
from tests.untrained import fit_untrained

SIZE, CNN_LAYER = 32, "expanded_conv_project_bn"
CASES = {
    "cscnn": ("cscnn", ("candidate",)),
    "history": ("hccm", ("history",)),
}
OPTIONS = {
    "cscnn": {
        "image_size": SIZE,
        "cnn_layer": CNN_LAYER,
        "cnn_weights": "random",
        "pretrain_epochs": 1,
    },
    "history": {"similarity": "cosine", "image_sides": "history"},
}


@pytest.fixture(scope="module")
def trained(shop):
    """Case → estimator; that of `cscnn` after one epoch."""
    estimators = {
        case: CTREstimator(
            model,
            feature_maps=shop.maps,
            image_dir=shop.images,
            group_by_item=True,
            epochs=1,
            batch_size=128,
            learning_rate=1e-2,
            **tiny(model, **OPTIONS[case]),
        )
        for case, (model, _) in CASES.items()
    }
    estimators["cscnn"].fit(shop.data)
    fit_untrained(estimators["history"], shop.data)
    return estimators


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Case → folder of the first version."""
    folder = tmp_path_factory.mktemp("sides")
    return {case: trained[case].export(folder / case) for case in CASES}


@pytest.fixture(scope="module", params=CASES)
def served(request, trained, exported):
    """`(case, estimator, name → signature)`."""
    signatures = tf.saved_model.load(str(exported[request.param])).signatures
    return request.param, trained[request.param], signatures


def test_an_export_answers_like_the_estimator(served, shop):
    case, estimator, signatures = served
    assert estimator.fitted_.trained.definition.sides == CASES[case][1]
    impressions = Impressions(shop.data, "test", ROWS)
    expected = estimator.predict_proba(shop.data)[:ROWS, 1]
    assert expected.std() > 1e-4
    request = impressions_request(impressions.rows, shop.schema, True, CASES[case][1])
    found = ask(signatures["serving_default"], request)["ctr"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    examples = np.array(impressions.examples, object)
    found = ask(signatures["serve_examples"], {"examples": examples})["ctr"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_inputs_of_the_other_side_are_not_asked_for(served, shop):
    case, _, signatures = served
    for name in ("serving_default", "rank", "explain"):
        columns = signatures[name].structured_input_signature[1]
        assert ("history_image" in columns) == (case == "history")
        # The shop's schema has the image's id as a feature too.
        assert "image" in columns and "image" in shop.schema


def test_rank_and_explain(served, shop):
    case, _, signatures = served
    own = CASES[case][1]
    impressions = Impressions(shop.data, "test", ROWS)
    requests = cut(impressions.rows, (7, 1, 4))
    request = rank_request(requests, shop.schema, True, own)
    plain = one_row_each(requests, shop.schema, True, own)
    expected = ask(signatures["serving_default"], plain)["ctr"]
    found = ask(signatures["rank"], request)["ctr"]
    np.testing.assert_allclose(found[request["candidate_mask"]], expected, atol=1e-6)
    records = [record_of(e, shop.schema) for e in cut(impressions.examples, (7, 1, 4))]
    examples = {"examples": np.array(records, object)}
    again = ask(signatures["rank_examples"], examples)["ctr"]
    np.testing.assert_allclose(again, found, atol=1e-6)
    names = {"history_attention"} | ({"image_attention"} if "history" in own else set())
    assert set(ask(signatures["explain"], plain)) == names


def test_undecodable_images_are_counted(shop, trained, capsys):
    catalogue = shop.items.image.dropna().unique()
    images = [image for image in catalogue if image]
    store = trained["cscnn"].fitted_.batches.images
    assert len(store.keys) == len(images) - 2 and len(store.skipped) == 2
    open_images(trained["cscnn"].fitted_.trained.configuration, shop.schema)
    printed = capsys.readouterr().out
    assert f"2 of {len(images)} images are missing or not decodable" in printed


def test_errors_name_the_argument(shop, tmp_path):
    options = tiny("cscnn", cnn_layer=CNN_LAYER, cnn_weights="random")
    estimator = CTREstimator("cscnn", **options)
    with pytest.raises(InputError, match="^image_dir: model cscnn needs the folder"):
        estimator.fit(shop.data)
    estimator.set_params(image_dir=tmp_path)
    with pytest.raises(InputError, match="^image_dir=.* such as .*: no such file"):
        estimator.fit(shop.data)
    estimator.set_params(image_dir=shop.images, cnn_weights="nowhere.h5")
    with pytest.raises(InputError, match="^cnn_weights=nowhere.h5: no such"):
        estimator.fit(shop.data)
    estimator.set_params(cnn_layer="last", cnn_weights="random")
    with pytest.raises(InputError, match="^cnn_layer: MobileNetV3Small has.*last"):
        estimator.fit(shop.data)


def _encoded(estimator, pixels, category):
    encoder = estimator.model_.get_layer("image_encoder")
    category = estimator.schema_.index("category", tf.constant(category))
    inputs = {"image_map": pixels, "image_category": category}
    return encoder(inputs, training=False).numpy()


def test_refresh_encodes_the_new_pixels(shop, trained, exported, tmp_path):
    shutil.copytree(exported["cscnn"], tmp_path / "model" / "1")
    shutil.copytree(shop.images, tmp_path / "images")
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    new = Image.fromarray(colours).resize((90, 70), Image.Resampling.NEAREST)
    new.save(tmp_path / "images" / "new.png")
    (tmp_path / "images" / "bad.png").write_text("no picture")
    items = pd.DataFrame(
        {
            "item_id": [9000, 9001, 9002],
            "image": ["new.png", "bad.png", "new.png"],
            "category": ["lamp", "lamp", "spaceship"],
        }
    )
    items = pd.concat([shop.items, items])
    items.to_csv(tmp_path / "items.csv", index=False)
    version = refresh(
        tmp_path / "model", tmp_path / "items.csv", image_dir=tmp_path / "images"
    )
    old, table = Version(exported["cscnn"]), Version(version)
    assert len(table.keys) == len(old.keys) + 2
    store = ImageFolder.open(tmp_path / "images", ["new.png"], SIZE)
    columns = {
        "image": tf.constant(["new.png"] * 2),
        "category": tf.constant(["lamp", "spaceship"]),
    }
    rows = ids.find(table.keys, table.image_keys(columns)).numpy() + 1
    assert (rows > 0).all()
    found = table._read(table._names["representation_vectors"]).numpy()[rows]
    expected = _encoded(trained["cscnn"], store.gather([1, 1]), ["lamp", "spaceship"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-5


def test_refresh_refuses_what_the_model_does_not_take(shop, exported, tmp_path):
    shop.items.to_csv(tmp_path / "items.csv", index=False)
    items = tmp_path / "items.csv"
    with pytest.raises(InputError, match="^image_dir: the model takes pixels"):
        refresh(exported["cscnn"].parent, items, shop.maps)
    with pytest.raises(InputError, match="^feature_maps: the model takes maps"):
        refresh(exported["history"].parent, items, image_dir=shop.images)
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InputError, match="^image_dir=.*nowhere: no such folder"):
        refresh(exported["cscnn"].parent, items, image_dir=nowhere)
    assert len(list(exported["cscnn"].parent.iterdir())) == 1


def test_a_warm_start_has_the_runs_cnn(shop, trained, tmp_path):
    estimator = trained["cscnn"]
    estimator.save(tmp_path)
    twin = clone(estimator).set_params(epochs=0, warm_start_from=tmp_path, seed=1)
    np.testing.assert_array_equal(
        twin.fit(shop.data).predict_proba(shop.data), estimator.predict_proba(shop.data)
    )
    # Neither weights of its own nor pretraining; training steps that change nothing.
    twin.set_params(epochs=1, learning_rate=0.0, cnn_weights="nowhere.h5")
    twin.fit(shop.data)
    pairs = zip(
        twin.model_.trainable_weights, estimator.model_.trainable_weights, strict=True
    )
    for found, expected in pairs:
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match="cnn_weights: .*is random.*nowhere.h5"):
        twin.set_params(epochs=0).fit(shop.data)
    with pytest.raises(InputError, match="image_size: .*image_size is 40.* was 32"):
        twin.set_params(epochs=1, image_size=40).fit(shop.data)


@pytest.mark.parametrize("case", CASES)
def test_explained_on_a_page(shop, trained, tmp_path, case):
    trained[case].explain(shop.data, tmp_path / "page.html", shop.images, 2)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<article>") == 2 and "item attention" in page
    assert ("image attention" in page) == (case == "history")
    assert "other categories" not in page  # of the candidate's feature map
