import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data import ids
from tests.reference import COLLIDING, fingerprint

EXTREMES = [np.iinfo(np.int64).min, -1, 0, 1, np.iinfo(np.int64).max]


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_find_equals_a_dict(count):
    rng = np.random.default_rng(count)
    keys = np.unique(rng.integers(-2000, 2000, size=count))
    if count > 2:
        keys = np.unique(np.concatenate([keys, EXTREMES]))
    places = {key: place for place, key in enumerate(keys.tolist())}
    query = np.concatenate([rng.integers(-2100, 2100, 600), EXTREMES, EXTREMES])
    expected = [places.get(key, -1) for key in query.tolist()]
    np.testing.assert_array_equal(ids.find(keys, tf.constant(query)), expected)
    matrix = tf.constant(query[:600].reshape(20, 30))
    found = tf.function(ids.find)(keys, matrix)
    np.testing.assert_array_equal(found, np.reshape(expected[:600], (20, 30)))


def test_find_of_nothing_is_empty():
    found = ids.find(np.array([3, 4]), tf.zeros([0], tf.int64))
    assert found.shape == (0,)


def test_integers_are_their_own_keys():
    np.testing.assert_array_equal(ids.to_keys(np.array(EXTREMES)), EXTREMES)


def test_string_keys_are_fingerprints_of_the_bytes():
    names = ["", "a", "ä", "10001.jpg", "x" * 300]
    keys = ids.to_keys(tf.reshape(tf.constant(names), [1, 5])).numpy()
    assert keys.shape == (1, 5)
    assert keys[0].tolist() == [fingerprint(name) for name in names]


def test_no_image_has_key_zero():
    keys = ids.image_keys(tf.constant(["", "1.jpg", ""])).numpy()
    assert keys.tolist() == [0, fingerprint("1.jpg"), 0]


def test_pair_keys_tell_categories_apart():
    image_keys = np.repeat(ids.image_keys(tf.constant(["a", "b", "c"])).numpy(), 500)
    categories = np.tile(np.arange(500, dtype=np.int32), 3)
    pairs = ids.pair_keys(tf.constant(image_keys), tf.constant(categories)).numpy()
    assert len(np.unique(pairs)) == len(pairs)
    none = ids.pair_keys(tf.zeros([500], tf.int64), tf.constant(categories[:500]))
    assert (none.numpy() == 0).all()


@pytest.mark.parametrize("values", [["b", "a", "ä"], np.array([5, -7, 0]), []])
def test_distinct_keys(values):
    keys, order, collisions = ids.distinct_keys(values)
    assert not collisions
    expected = [fingerprint(v) if isinstance(v, str) else int(v) for v in values]
    assert keys.tolist() == sorted(expected)
    assert [expected[place] for place in order] == sorted(expected)


def test_of_ids_of_one_key_the_most_frequent_has_it():
    (common, rare), other = COLLIDING[0], COLLIDING[1][0]
    values = np.array(["a", rare, other, common], object)
    keys, order, collisions = ids.distinct_keys(values, [1, 4, 1, 5])
    assert sorted(values[order]) == sorted(["a", other, common])
    assert keys.tolist() == sorted(map(fingerprint, ["a", other, common]))
    assert collisions == [(rare, common)]
    (line,) = ids.describe_collisions("brands", collisions, "no brand")
    assert line.startswith(f"warning: brands: {rare!r} is no brand, because")
    # Whatever their order is.
    for values in ([rare, common], [common, rare]):
        _, order, _ = ids.distinct_keys(values, [3, 3])
        assert values[order[0]] == min(rare, common)


@pytest.mark.parametrize("pair", COLLIDING)
def test_an_id_is_not_another_one_of_its_key(pair):
    known, unknown = pair
    values = np.array(["a", known, "b"], object)
    keys, order, _ = ids.distinct_keys(values)
    assert fingerprint(known) == fingerprint(unknown)
    checks = ids.to_checks(values[order]).numpy()
    asked = tf.constant([[unknown, known], ["a", "c"]])
    found = ids.find_ids(keys, asked, checks).numpy()
    places = [*values[order]]
    assert found.tolist() == [[-1, places.index(known)], [places.index("a"), -1]]
    # Without checks the keys alone count.
    assert ids.find_ids(keys, asked)[0, 0] == places.index(known)
