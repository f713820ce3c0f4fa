"""What TensorBoard's projector is given, against the log, the model and the photos."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins import projector

from hccm_tf import CTREstimator
from hccm_tf.errors import InputError
from hccm_tf.explanation.projector import GREY, SIZE, write_projector
from hccm_tf.images.read import decode_image
from hccm_tf.models.ensemble import rankers_of
from tests.conftest import tiny
from tests.reference import read_maps
from tests.untrained import fit_untrained

COUNT = 30


def read(folder):
    """Vectors by name, metadata, and the photos in order as far as there are any."""
    config = projector.ProjectorConfig()
    text_format.Parse((folder / "projector_config.pbtxt").read_text(), config)
    vectors, photos = {}, None
    for entry in config.embeddings:
        vectors[entry.tensor_name] = np.loadtxt(folder / entry.tensor_path, ndmin=2)
        metadata = pd.read_csv(folder / entry.metadata_path, sep="\t")
        if entry.sprite.image_path:
            height, width = entry.sprite.single_image_dim
            sprite = np.asarray(Image.open(folder / entry.sprite.image_path))
            assert max(sprite.shape) <= 8192
            photos = [
                sprite[top : top + height, left : left + width]
                for top in range(0, sprite.shape[0], height)
                for left in range(0, sprite.shape[1], width)
            ]
    return vectors, metadata, photos


@pytest.fixture(scope="module")
def shown(shop):
    """Item → impressions in training, and the items by it, without new ones' order."""
    train = shop.log[shop.log.split == "train"]
    return shop.items.item_id.map(train.item_id.value_counts()).fillna(0).astype(int)


def test_photos_vectors_and_items_agree(shop, fitted, shown, tmp_path, capsys):
    fitted_model, folder = fitted["hccm"].fitted_, tmp_path / "logs" / "items"
    arguments = fitted_model.trained, fitted_model.batches_of(shop.data), shop.images
    write_projector(folder, *arguments, count=5)
    assert "not shown" not in capsys.readouterr().out
    # Once more, in its place.
    write_projector(folder, *arguments, COUNT)
    vectors, metadata, photos = read(folder)
    assert set(vectors) == {"photos", "item_id"}
    assert {len(v) for v in vectors.values()} == {len(metadata)} == {COUNT}
    maps = read_maps(shop.maps)
    items = shop.items.assign(shown=shown)
    with_photo = items[items.image.isin(list(maps))]
    most = with_photo.shown.nlargest(COUNT).tolist()
    assert metadata.impressions.tolist() == most and most[0] > most[-1]
    items = items.set_index("item_id").loc[metadata.item_id]
    assert items.shown.tolist() == most
    assert items.category.tolist() == metadata.category.tolist()
    for place, image in enumerate(items.image):
        expected, _ = decode_image(image, shop.images, SIZE)
        np.testing.assert_array_equal(photos[place], expected)
    assert all((photo == GREY).all() for photo in photos[COUNT:])
    model, schema = fitted["hccm"].model_, fitted["hccm"].schema_
    category = schema.index("category", tf.constant(items.category.tolist())).numpy()
    inputs = {"image_map": np.stack([maps[image] for image in items.image])}
    inputs["image_category"] = category
    expected = model.get_layer("image_encoder")(inputs, training=False)
    np.testing.assert_allclose(vectors["photos"], expected, rtol=1e-4, atol=1e-5)
    _check_embeddings(fitted["hccm"], vectors["item_id"], metadata.item_id)
    # What makes TensorBoard look into the folder.
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    write_projector(folder, *arguments[:2], tmp_path, COUNT)
    said = capsys.readouterr().out
    distinct = items.image.nunique()
    start = f"warning: {distinct} of {distinct} images are not shown, such as "
    assert said.startswith(start) and said.endswith(": no such file\n")
    assert all((photo == GREY).all() for photo in read(folder)[2])


def _check_embeddings(estimator, vectors, item_ids):
    """The rows of the table, by the places of ids among those of training."""
    layers = estimator.model_.layers
    for layer in list(layers):
        layers = [*layers, *getattr(layer, "layers", [])]
    (table,) = [one for one in layers if one.name == "item_id_embedding"]
    _check_table(table, estimator.schema_, vectors, item_ids)


def _check_table(layer, schema, vectors, item_ids):
    table = layer.get_weights()[0]
    known = list(schema.vocabularies["item_id"])
    rows = [known.index(item) + 2 if item in known else 1 for item in item_ids]
    np.testing.assert_allclose(vectors, table[rows], rtol=1e-4, atol=1e-5)


def test_a_model_without_photos(shop, fitted, shown, tmp_path, capsys):
    """All items, with and without photos, new ones last."""
    fitted_model = fitted["din"].fitted_
    batches = fitted_model.batches_of(shop.data)
    write_projector(tmp_path / "items", fitted_model.trained, batches, None, 1000)
    vectors, metadata, photos = read(tmp_path / "items")
    assert set(vectors) == {"item_id"} and photos is None
    assert sorted(metadata.item_id) == sorted(shop.items.item_id)
    assert metadata.impressions.tolist() == sorted(shown, reverse=True)
    _check_embeddings(fitted["din"], vectors["item_id"], metadata.item_id)
    # A file that is missing and one that is corrupt are grey.
    images = batches, shop.images, 1000
    capsys.readouterr()
    write_projector(tmp_path / "items", fitted_model.trained, *images)
    # No image is none that is missing.
    assert "warning: 2 of 58 images are not shown" in capsys.readouterr().out
    _, metadata, photos = read(tmp_path / "items")
    names = shop.items.set_index("item_id").image.fillna("").loc[metadata.item_id]
    readable = [
        bool(name) and decode_image(name, shop.images, SIZE)[0] is not None
        for name in names
    ]
    grey = [bool((photo == GREY).all()) for photo in photos[: len(names)]]
    assert grey == [not one for one in readable] and sum(grey) > 2


def test_an_ensemble_has_a_table_of_each_ranker(shop, tmp_path):
    estimator = CTREstimator("din", **tiny("din", ensemble_size=2))
    fitted = fit_untrained(estimator, shop.data).fitted_
    batches = fitted.batches_of(shop.data)
    write_projector(tmp_path / "items", fitted.trained, batches, None, COUNT)
    vectors, metadata, _ = read(tmp_path / "items")
    halves = np.split(vectors["item_id"], 2, axis=1)
    for ranker, half in zip(rankers_of(estimator.model_), halves, strict=True):
        layer = ranker.get_layer("item_id_embedding")
        _check_table(layer, estimator.schema_, half, metadata.item_id)
    assert (halves[0] != halves[1]).any()


def test_what_it_refuses(shop, fitted, tmp_path, monkeypatch):
    trained = fitted["hccm"].fitted_.trained
    settings = trained.configuration.settings
    monkeypatch.setitem(vars(settings), "shuffle_images", True)
    with pytest.raises(InputError, match="a control's model"):
        write_projector(tmp_path / "items", trained, None, None, 3)
    assert not list(tmp_path.iterdir())
