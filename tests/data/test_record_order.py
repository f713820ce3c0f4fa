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
    return dataset, [
        (inputs["item_id"], inputs["image"], inputs["image_map"], labels, users)
        for inputs, labels, users in dataset.as_numpy_iterator()
    ]


@pytest.mark.parametrize("window", [10_000, 200])
def test_grouping_by_item_loses_nothing(shop, monkeypatch, window):
    monkeypatch.setattr("hccm_tf.data.record_order.SHUFFLE_BUFFER", window)
    dataset, plain = _groups(shop, 1, grouped=False)
    again, grouped = _groups(shop, 1)
    assert dataset.cardinality() == again.cardinality() == len(grouped) == len(plain)
    assert [len(b[0]) for b in grouped] == [len(b[0]) for b in plain]

    def rows(batches):
        columns = [np.concatenate([b[i].ravel() for b in batches]) for i in (0, 3, 4)]
        return sorted(zip(*(column.tolist() for column in columns), strict=True))

    assert rows(grouped) == rows(plain)
    maps = [np.mean([len(b[2]) for b in arm]) for arm in (grouped, plain)]
    assert maps[0] < maps[1]
    if window == 10_000:
        # One window: an image stands in as few batches as it can.
        images = np.concatenate([b[1] for b in grouped])
        assert np.count_nonzero(np.diff(images)) == len(np.unique(images)) - 1


def test_grouping_by_item_is_seeded_and_differs_by_epoch(shop):
    _, first = _groups(shop, epoch_seed(1, 0))
    _, same = _groups(shop, epoch_seed(1, 0))
    _, other = _groups(shop, epoch_seed(1, 1))
    items = lambda batches: np.concatenate([b[0] for b in batches])  # noqa: E731
    np.testing.assert_array_equal(items(first), items(same))
    assert (items(first) != items(other)).any()
    # Other items share a batch.
    assert [set(b[0]) for b in first] != [set(b[0]) for b in other]
