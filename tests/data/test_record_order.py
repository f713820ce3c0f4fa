import numpy as np
import pytest

from hccm_tf.data.dataset import Batches
from hccm_tf.data.record_order import epoch_seed


def _groups(shop, seed, batch_size=50, grouped=True):
    """The dataset, and of each batch of one epoch what the tests look at."""
    batches = Batches(
        shop.data,
        shop.schema,
        batch_size,
        shop.store,
        sides=("candidate",),
        group_by_item=grouped,
    )
    dataset = batches.dataset("train", epoch=seed)
    found = []
    for inputs, labels, weights, keys in dataset.as_numpy_iterator():
        mask = inputs["candidate_mask"]
        users = np.broadcast_to(keys["user_key"][:, None], mask.shape)
        columns = inputs["item_id"], inputs["image"], labels[..., 0], weights
        columns = *columns, keys["row"], users
        found.append(([column[mask] for column in columns], len(inputs["image_map"])))
    return dataset, found


@pytest.fixture(params=["shop", "weighted_shop"])
def any_shop(request):
    """One whose requests have one candidate each, and one where they have several."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("window", [10_000, 200])
def test_grouping_by_item_loses_nothing(any_shop, monkeypatch, window):
    monkeypatch.setattr("hccm_tf.data.record_order.SHUFFLE_BUFFER", window)
    _, plain = _groups(any_shop, 1, grouped=False)
    dataset, grouped = _groups(any_shop, 1)
    total = int((any_shop.log.split == "train").sum())
    sizes = [len(columns[0]) for columns, _ in grouped]
    assert dataset.cardinality() == len(sizes) == -(-total // 50)
    assert sizes == [50] * (total // 50) + [total % 50] * (total % 50 > 0)

    def rows(batches):
        columns = zip(*(columns for columns, _ in batches), strict=True)
        columns = [np.concatenate(column).tolist() for column in columns]
        return sorted(zip(*columns, strict=True))

    assert rows(grouped) == rows(plain)
    maps = [np.mean([count for _, count in arm]) for arm in (grouped, plain)]
    assert maps[0] < maps[1]
    images = np.concatenate([columns[1] for columns, _ in grouped])
    images = images[images > 1]
    if window == 10_000:
        # One window: an image stands in as few batches as it can.
        assert np.count_nonzero(np.diff(images)) == len(np.unique(images)) - 1
    else:
        for start in range(0, len(grouped), window // 50):
            part = np.concatenate([c[1] for c, _ in grouped[start : start + 4]])
            part = part[part > 1]
            assert np.count_nonzero(np.diff(part)) == len(np.unique(part)) - 1


def test_impressions_without_an_image_are_spread(any_shop):
    _, grouped = _groups(any_shop, 1)
    share = np.array([np.mean(columns[1] == 1) for columns, _ in grouped[:-1]])
    assert share.max() < 0.5


def test_grouping_by_item_is_seeded_and_differs_by_epoch(any_shop):
    _, first = _groups(any_shop, epoch_seed(1, 0))
    _, same = _groups(any_shop, epoch_seed(1, 0))
    _, other = _groups(any_shop, epoch_seed(1, 1))
    items = lambda batches: np.concatenate([c[0] for c, _ in batches])  # noqa: E731
    np.testing.assert_array_equal(items(first), items(same))
    assert (items(first) != items(other)).any()
    # Other items share a batch.
    assert [set(c[0]) for c, _ in first] != [set(c[0]) for c, _ in other]


def test_a_requests_impressions_are_scattered(weighted_shop):
    """Those of the same image that stand together are in no order of requests."""
    _, grouped = _groups(weighted_shop, 1)
    rows = np.concatenate([columns[4] for columns, _ in grouped])
    image = np.concatenate([columns[1] for columns, _ in grouped])
    same = np.diff(image) == 0
    share = np.mean(np.diff(rows)[same] > 0)
    assert 0.4 < share < 0.6
    one_request = weighted_shop.log.groupby(["user_id", "timestamp"]).ngroup()[rows]
    assert np.mean(np.diff(one_request) == 0) < 0.05
