"""What the trees see, against the log in plain Python."""

import collections

import numpy as np
import pytest

from hccm_tf.data.dataset import Batches
from hccm_tf.data.pooled_maps import PooledMaps
from hccm_tf.models.match_share import match_share
from hccm_tf.trees.features import (
    category_names,
    image_cosines,
    number_names,
    read_table,
)
from tests.reference import read_maps, vocabulary_index


@pytest.fixture(scope="module", params=["shop", "weighted_shop"])
def any_shop(request):
    """One whose requests have one candidate each, and one where they have several."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def table(any_shop):
    images = PooledMaps(any_shop.store)
    batches = Batches(any_shop.data, any_shop.schema, 64, images)
    return read_table(batches, "test", similarity="category_cosine")


def _clicks(shop, row):
    return [shop.log.loc[click] for click in shop.log.history[row]]


def test_rows_are_those_of_the_log(any_shop, table):
    log = any_shop.log[any_shop.log.split == "test"]
    assert sorted(table.rows.row) == log.index.tolist()
    shown = log.loc[table.rows.row]
    assert table.rows.label.tolist() == shown.label.tolist()
    assert table.rows.user_key.tolist() == shown.user_id.tolist()
    if "weight" in log:
        assert table.rows.weight.tolist() == shown.weight.tolist()
        assert table.rows.weight.nunique() == 3
    else:
        assert (table.rows.weight == 1).all()


def test_shares_and_lengths(any_shop, table):
    schema = any_shop.schema
    names = number_names(schema, "category_cosine")
    assert table.numbers.shape == (len(table.rows), len(names))
    known = {
        feature.shares: set(any_shop.log[any_shop.log.split == "train"][feature.shares])
        for feature in schema.sequences
    }
    kinds = set()
    for row, numbers in zip(table.rows.row, table.numbers, strict=True):
        one, clicks = any_shop.log.loc[row], _clicks(any_shop, row)
        assert numbers[names.index("history length")] == len(clicks)
        for name, values in known.items():
            same = sum(click[name] == one[name] in values for click in clicks)
            share = same / len(clicks) if clicks else 0
            assert numbers[names.index(f"share of history_{name}")] == pytest.approx(
                share
            )
            unknown = [click[name] not in values for click in clicks]
            if one[name] not in values:
                kinds.add("both unknown" if any(unknown) else "unknown")
            else:
                kinds.add("match" if same else "none")
    assert len(known) > 1 and {"unknown", "match", "none"} <= kinds


def test_two_unknown_values_are_no_match():
    candidate = np.array([[1, 2, 3, 0], [1, 5, 0, 0], [4, 4, 1, 0]])
    history = np.array([[1, 2, 2, 1, 7], [5, 5, 0, 0, 0], [0, 0, 0, 0, 0]])
    expected = [[0, 2 / 5, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    found = match_share(candidate, history)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_numbers_and_categories(any_shop, table):
    schema, log = any_shop.schema, any_shop.log
    train = log[log.split == "train"]
    names, categories = number_names(schema, "category_cosine"), category_names(schema)
    assert {"item_id", "category", "user_id", "image"} <= set(categories)
    shown = log.loc[table.rows.row]
    price = train.price.astype(np.float32).astype(float)
    np.testing.assert_allclose(
        table.numbers[:, names.index("price")],
        (shown.price - price.mean()) / price.std(ddof=0),
        atol=1e-5,
    )
    for name in ("item_id", "category", "user_id"):
        values = set(shown[name])
        index = {value: vocabulary_index(train[name], value) for value in values}
        found = table.categories[:, categories.index(name)]
        assert found.tolist() == [index[value] for value in shown[name]]


def test_cosines(any_shop, table):
    store, maps = any_shop.store, read_maps(any_shop.maps)
    names = number_names(any_shop.schema, "category_cosine")
    first = names.index("cosine, mean")
    vectors = {
        name: ((one.astype(float) - store.channel_mean) / store.channel_std).mean(
            (0, 1)
        )
        for name, one in maps.items()
    }

    def cosine(a, b):
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    def summary(query, keys):
        if query is None or not keys:
            return [0] * 3
        values = np.array([cosine(query, key) for key in keys])
        return [values.mean(), values.max(), np.log(np.exp(10 * values).mean()) / 10]

    log, counts = any_shop.log, collections.Counter()
    known = set(log.category[log.split == "train"])
    for row, numbers in zip(table.rows.row, table.numbers, strict=True):
        query, category = vectors.get(log.image[row]), log.category[row]
        clicks = [click for click in _clicks(any_shop, row) if click.image in vectors]
        keys = [vectors[click.image] for click in clicks]
        same = [
            vectors[click.image]
            for click in clicks
            if click.category == category and category in known
        ]
        with_mean = 0
        if query is not None and keys:
            with_mean = cosine(query, np.mean(keys, axis=0))
        expected = [*summary(query, keys), with_mean, *summary(query, same)]
        np.testing.assert_allclose(numbers[first : first + 7], expected, atol=1e-4)
        counts[query is not None and min(len(keys), 1) + min(len(same), 1)] += 1
    # Neither an image nor clicks, other clicks only, clicks of the category.
    assert set(counts) == {0, 1, 2}


def test_no_image_is_similar_to_nothing():
    vectors = np.array([[0, 0], [1, 0], [0, 2]], np.float32)
    found = image_cosines(
        vectors, np.array([[0, 1], [1, 2]]), np.array([[1, 0], [0, 0]])
    )
    np.testing.assert_allclose(found, [[[0] * 4, [1] * 4], [[0] * 4] * 2], atol=1e-6)


def test_without_images(shop, table):
    batches = Batches(shop.data, shop.schema, 64)
    plain = read_table(batches, "test")
    kept = [
        not n.startswith("cosine") for n in number_names(shop.schema, "category_cosine")
    ]
    assert plain.numbers.shape[1] == sum(kept) == len(kept) - 7


def test_a_sample_of_the_requests(weighted_shop):
    batches = Batches(weighted_shop.data, weighted_shop.schema, 32)
    whole = read_table(batches, "train")
    head = read_table(batches, "train", limit=150)
    assert head.rows.row.tolist() == whole.rows.row[: len(head.rows)].tolist()
    table = read_table(batches, "train", limit=150, epoch=0)
    assert 100 < len(table.rows) < 200
    assert set(table.rows.row) < set(whole.rows.row) and table.rows.row.is_unique
    assert not set(table.rows.row) <= set(head.rows.row)
    place = whole.rows.row.tolist().index(table.rows.row[0])
    np.testing.assert_array_equal(table.numbers[0], whole.numbers[place])
