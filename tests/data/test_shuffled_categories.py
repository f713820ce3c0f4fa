import collections
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data.dataset import Batches
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.shuffled_categories import shuffled_categories
from hccm_tf.errors import InputError


@pytest.fixture(scope="module")
def pairs(shop):
    """The (row, category) of each image of the catalogue, once, brute force."""
    catalogue = DataFolder(shop.data).catalogue().to_pandas()
    rows = shop.store.find(catalogue.image_key.to_numpy()).numpy()
    category = shop.schema.index("category", tf.constant(catalogue.category)).numpy()
    return sorted({p for p in zip(rows, category, strict=True) if p[0]})


def _tell(shop, seed, pairs):
    tell = shuffled_categories(shop.data, shop.schema, shop.store, seed)
    rows, category = np.array(pairs).T
    return tell(rows.astype(np.int64), category.astype(np.int32)).numpy()


def test_categories_are_dealt_out(shop, pairs):
    told = _tell(shop, 0, pairs)
    true = [category for _, category in pairs]
    assert told.dtype == np.int32
    assert collections.Counter(told) == collections.Counter(true)
    assert np.mean(told != true) > 0.5
    np.testing.assert_array_equal(told, _tell(shop, 0, pairs))
    assert (told != _tell(shop, 1, pairs)).any()


def test_what_is_not_in_the_catalogue_keeps_its_category(shop):
    unknown = [(0, 0), (10**6, 1), (10**6, 3)]
    assert _tell(shop, 0, unknown).tolist() == [0, 1, 3]


def test_only_the_encoder_is_told(shop, pairs):
    told = dict(zip(pairs, _tell(shop, 0, pairs), strict=True))
    tell = shuffled_categories(shop.data, shop.schema, shop.store, 0)
    sets = [
        Batches(shop.data, shop.schema, 64, shop.store, tell_category=t).dataset("test")
        for t in (None, tell)
    ]
    by_map = {
        shop.store.gather(tf.constant([row], tf.int64)).numpy().tobytes(): row
        for row, _ in [*pairs, (0, 0)]
    }
    seen = 0
    for (plain, *rest), (control, *rest_of_control) in zip(*sets, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, rest, rest_of_control)
        for name in plain:
            if name != "image_category":
                np.testing.assert_array_equal(plain[name], control[name])
        rows = [by_map[image.tobytes()] for image in plain["image_map"].numpy()]
        for row, true, found in zip(
            rows,
            plain["image_category"].numpy(),
            control["image_category"].numpy(),
            strict=True,
        ):
            assert found == told.get((row, true), 0)
            seen += row > 0
    assert seen > 50


def test_needs_a_category(shop):
    features = [f for f in shop.schema.features if "category" not in f.name]
    schema = dataclasses.replace(shop.schema, features=tuple(features))
    with pytest.raises(InputError, match="shuffle_categories: .*no feature category"):
        shuffled_categories(shop.data, schema, shop.store, 0)
