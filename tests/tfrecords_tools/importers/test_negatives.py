import numpy as np
import pytest

from hccm_tf.errors import InputError
from tfrecords_tools.importers.negatives import (
    draw_impressions,
    hash_ids,
    user_item_keys,
)


def _draw(users, items, num_items, negatives, seed=0):
    user_keys, catalogue = hash_ids(users), hash_ids(np.arange(num_items))
    return draw_impressions(
        user_keys,
        items,
        np.sort(user_item_keys(user_keys, catalogue[items])),
        catalogue,
        negatives,
        np.random.default_rng(seed),
    )


def test_a_clicked_item_is_never_a_negative():
    rng = np.random.default_rng(1)
    users, items = rng.integers(5, size=60), rng.integers(20, size=60)
    drawn, labels = _draw(users, items, 20, negatives=30)
    clicked = set(zip(users.tolist(), items.tolist(), strict=True))
    rows, labels = drawn.reshape(60, 31), labels.reshape(60, 31)
    np.testing.assert_array_equal(rows[:, 0], items)
    np.testing.assert_array_equal(labels, np.eye(1, 31, dtype=int).repeat(60, axis=0))
    pairs = zip(users.repeat(30).tolist(), rows[:, 1:].ravel().tolist(), strict=True)
    assert not clicked & set(pairs)


@pytest.mark.parametrize("free", [[3], [1, 4, 7, 8], list(range(0, 400, 3))])
def test_negatives_are_uniform_over_the_rest(free):
    # With one free item of 400, redrawing gives up and the free items are listed.
    num_items = 400
    items = np.setdiff1d(np.arange(num_items), free)
    drawn, labels = _draw(np.zeros(len(items), int), items, num_items, negatives=10)
    values, counts = np.unique(drawn[labels == 0], return_counts=True)
    np.testing.assert_array_equal(values, free)
    # Five standard deviations of a binomial.
    expected = counts.sum() / len(free)
    assert (abs(counts - expected) <= 5 * np.sqrt(expected)).all()


def test_the_seed_decides():
    users, items = np.arange(40) % 4, np.arange(40)
    first, again, other = (_draw(users, items, 99, 3, seed)[0] for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_no_negatives():
    drawn, labels = _draw(np.array([0, 0]), np.array([0, 1]), 2, negatives=0)
    assert (drawn.tolist(), labels.tolist()) == ([0, 1], [1, 1])


def test_a_user_who_clicked_everything():
    with pytest.raises(InputError, match="each of the 2 items"):
        _draw(np.array([0, 0, 1]), np.array([0, 1, 0]), 2, negatives=1)


def test_keys_of_strings_and_integers():
    numbers = np.arange(100_000)
    strings = np.array([f"B{number}" for number in numbers], object)
    for ids in (numbers, strings):
        assert len(np.unique(hash_ids(ids))) == len(ids)
        np.testing.assert_array_equal(hash_ids(ids[7:9]), hash_ids(ids)[7:9])
    user, item = hash_ids(numbers[:2])[:, None]
    assert user_item_keys(user, item) != user_item_keys(item, user)
