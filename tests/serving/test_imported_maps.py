"""Vectors of another encoder on their way to an export and its refresh."""

import numpy as np
import pytest
import tensorflow as tf

from hccm_tf import CTREstimator
from hccm_tf.data import ids
from hccm_tf.errors import InputError
from hccm_tf.preparation.feature_maps.import_maps import import_feature_maps
from hccm_tf.serving.refresh import refresh
from tests.conftest import tiny
from tests.untrained import fit_untrained

DIM = 20


@pytest.fixture(scope="module")
def vectors(shop):
    """Image name → vector, of the shop's images and a new one."""
    names = sorted({*shop.items.image, "new.jpg"} - {""})
    values = np.random.default_rng(0).standard_normal((len(names), DIM))
    return dict(zip(names, values.astype(np.float32), strict=True))


def _import(path, vectors, names, encoder="clip", **arguments):
    file = path.with_suffix(".npz")
    np.savez(file, ids=names, maps=np.stack([vectors[name] for name in names]))
    import_feature_maps(file, path, encoder, **arguments)
    return path


def test_a_new_photos_vector(shop, vectors, tmp_path, capsys):
    names = sorted(set(vectors) - {"new.jpg"})
    maps = _import(tmp_path / "maps", vectors, names)
    estimator = CTREstimator("hccm", maps, **tiny("hccm"))
    fit_untrained(estimator, shop.data)
    assert f"vectors of {DIM} values: the trainable CNN is an MLP" in (
        capsys.readouterr().out
    )
    version = estimator.export(tmp_path / "export")
    encoder = estimator.model_.get_layer("image_encoder")

    category = shop.items.category[0]
    items = shop.items.iloc[[0]].assign(item_id=-7, image="new.jpg")
    items.to_csv(tmp_path / "new.csv", index=False)
    extended = _import(tmp_path / "extended", vectors, ["new.jpg"], extend=maps)
    refreshed = refresh(version.parent, tmp_path / "new.csv", extended)
    model = tf.saved_model.load(str(refreshed))
    encoded = model.signatures["encode_images"](
        image_map=tf.constant(vectors["new.jpg"][None, None, None], tf.float16),
        category=tf.constant([category]),
    )["representation"].numpy()
    index = estimator.schema_.index("category", tf.constant([category]))
    expected = encoder(
        {
            "image_map": vectors["new.jpg"][None, None, None].astype(np.float16),
            "image_category": index.numpy(),
        },
        training=False,
    ).numpy()
    np.testing.assert_allclose(encoded, expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-3
    key = ids.pair_keys(ids.image_keys(["new.jpg"]), index).numpy()[0]
    variables = {
        variable.name.partition(":")[0]: variable.numpy()
        for variable in model.signatures["serving_default"].variables
    }
    row = np.flatnonzero(variables["representation_keys"] == key)[0] + 1
    found = variables["representation_vectors"][row]
    np.testing.assert_allclose(found, expected[0], atol=1e-5)

    other = _import(tmp_path / "other", vectors, ["new.jpg"], "siglip")
    with pytest.raises(InputError, match="another CNN.*clip.*siglip"):
        refresh(version.parent, tmp_path / "new.csv", other)
