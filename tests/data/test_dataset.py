import json
import shutil

import keras
import numpy as np
import pytest

from hccm_tf.data.dataset import Batches
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.image_inputs import SIDES
from hccm_tf.models import MODELS, build_model
from hccm_tf.preparation.examples.build import build_examples
from tests.conftest import MAX_HISTORY, tiny
from tests.data.against_log import AgainstLog
from tests.models.batches import LOSS


@pytest.fixture(scope="module", params=["shop", "weighted_shop"])
def any_shop(request):
    """One whose requests have one candidate each, and one where they have several."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def batches(any_shop):
    dataset = Batches(any_shop.data, any_shop.schema, 64, any_shop.store)
    return list(dataset.dataset("test").as_numpy_iterator())


def _expected(shop, split):
    """The rows of the log of each of a split's records, in order: list of lists."""
    part, most = shop.log[shop.log.split == split], DataFolder(shop.data).max_candidates
    if "weight" not in part:
        return [[row] for row in part.index]
    requests = part.groupby(["user_id", "timestamp"]).groups.values()
    requests = sorted(list(rows) for rows in requests)
    return [
        rows[first : first + most]
        for rows in requests
        for first in range(0, len(rows), most)
    ]


def test_batches_equal_the_log(any_shop, batches):
    check = AgainstLog(any_shop).check
    found = [rows for batch in batches for rows in check(batch)]
    assert found == _expected(any_shop, "test")


@pytest.mark.parametrize("grouped", [False, True])
def test_a_shuffled_epoch_equals_the_log(any_shop, grouped):
    check = AgainstLog(any_shop).check
    dataset = Batches(
        any_shop.data, any_shop.schema, 64, any_shop.store, group_by_item=grouped
    ).dataset("train", epoch=2)
    found = [rows for batch in dataset.as_numpy_iterator() for rows in check(batch)]
    expected = _expected(any_shop, "train")
    if grouped:
        expected = [[row] for rows in expected for row in rows]
    assert found != expected
    assert sorted(found) == sorted(expected)


def test_the_shop_has_the_awkward_cases(any_shop, batches):
    test = any_shop.log[any_shop.log.split == "test"]
    assert test.history.map(len).max() == any_shop.schema.max_history
    assert test.image.eq("").any()
    unknown = [inputs["item_id"] == 1 for inputs, *_ in batches]
    assert any(found.any() for found in unknown)
    assert "image" in any_shop.schema


def test_requests_have_awkward_sizes(weighted_shop):
    sizes = weighted_shop.log.groupby(["user_id", "timestamp"]).size()
    folder = DataFolder(weighted_shop.data)
    # Some are cut.
    assert 2 < folder.max_candidates < sizes.max() and folder.weighted
    records = [len(rows) for rows in _expected(weighted_shop, "train")]
    assert set(records) == set(range(1, folder.max_candidates + 1))
    assert folder.num_requests("train") == len(records)
    assert weighted_shop.schema["position"].candidate
    assert not weighted_shop.schema["hour"].candidate


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_batches_add_up_to_the_split(any_shop, split, grouped):
    batches = Batches(any_shop.data, any_shop.schema, 100, group_by_item=grouped)
    dataset, folder = batches.dataset(split, epoch=1), batches.folder
    masks = [inputs["candidate_mask"].numpy() for inputs, *_ in dataset]
    total = int((any_shop.log.split == split).sum())
    assert sum(mask.sum() for mask in masks) == folder.num_impressions(split) == total
    requests = total if grouped else folder.num_requests(split)
    assert sum(map(len, masks)) == requests
    assert len(masks) == dataset.cardinality() == batches.num_batches(split, True)
    # A batch has so many impressions, on average.
    size = 100 if grouped else batches.requests_per_batch(split)
    assert len(masks) == -(-requests // size)
    assert size == round(100 * requests / total)
    in_order = batches.dataset(split)
    assert in_order.cardinality() == batches.num_batches(split)
    assert len(list(in_order)) == -(
        -folder.num_requests(split) // (batches.requests_per_batch(split))
    )


def test_shuffling_is_seeded_and_loses_nothing(any_shop):
    def order(seed):
        dataset = Batches(any_shop.data, any_shop.schema, 50).dataset(
            "train", epoch=seed
        )
        return [rows for *_, keys in dataset for rows in keys["row"].numpy().tolist()]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))


def _copied(shop, folder, copies):
    """A data folder whose train split is so many copies of the shop's one file."""
    shutil.copytree(shop.data, folder)
    (file,) = folder.glob("impressions-train.tfrecord-*")
    for copy in range(copies):
        name = f"impressions-train.tfrecord-{copy:05d}-of-{copies:05d}"
        shutil.copy(shop.data / file.name, folder / name)
    info = json.loads((folder / "dataset_info.json").read_text())
    for split in info["splits"]:
        if split["name"] == "train":
            split["shardLengths"] *= copies
    (folder / "dataset_info.json").write_text(json.dumps(info))
    summary = json.loads((folder / "summary.json").read_text())
    for counts in (summary["splits"], summary["requests"]):
        counts["train"] *= copies
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_folder_that_was_built_anew_is_read_anew(weighted_shop, tmp_path):
    data, plain = tmp_path / "data", tmp_path / "plain"
    log = weighted_shop.impressions.drop(columns="weight")
    build_examples(weighted_shop.items, log, plain, max_history=MAX_HISTORY)
    batches = Batches(data, weighted_shop.schema, 64)
    for folder, expected in ((plain, {0, 1}), (weighted_shop.data, {0, 0.5, 2})):
        data.unlink(missing_ok=True)
        data.symlink_to(folder)
        weights = [batch[2].numpy().ravel() for batch in batches.dataset("test")]
        assert set(np.concatenate(weights)) == expected


@pytest.mark.parametrize("files", [1, 3, 4])
def test_parts_are_disjoint_and_whole(any_shop, tmp_path, files):
    data = _copied(any_shop, tmp_path / "data", files)
    batches = Batches(data, any_shop.schema, 64)
    size = batches.requests_per_batch("train")

    def rows(part, **arguments):
        """Of each request the user and the rows."""
        dataset = batches.dataset("train", part=part, **arguments)
        found = [(keys["user_key"], keys["row"]) for *_, keys in dataset]
        users, rows = (np.concatenate(c).tolist() for c in zip(*found, strict=True))
        return list(zip(users, rows, strict=True))

    for arguments in ({"epoch": 3}, {}):
        whole = rows((0, 1), **arguments)
        parts = [rows((index, 2), **arguments) for index in (0, 1)]
        assert len(whole) == files * len(_expected(any_shop, "train"))
        assert sorted(parts[0] + parts[1]) == sorted(whole)
        assert abs(len(parts[0]) - len(parts[1])) <= size
    # A later beginning is the end of the same order, and begins again with the first.
    whole = rows((0, 2), epoch=3)
    assert rows((0, 2), epoch=3, skip=2) == whole[2 * size :]
    again = batches.dataset("train", epoch=3, part=(0, 2), skip=2, repeat=True)
    count = -(-len(whole) // size)
    found = [keys["row"].numpy().tolist() for *_, keys in again.take(count)]
    assert found[count - 2] == [row for _, row in whole[:size]]


@pytest.mark.parametrize(
    "name", [n for n, model in MODELS.items() if not model.takes_pixels]
)
def test_keras_weighs_the_loss_by_the_requests(any_shop, batches, name):
    # Keras takes the number of examples from the first tensor in the dict's order.
    if not MODELS[name].has_images:
        dataset = Batches(any_shop.data, any_shop.schema, 64).dataset("test")
        batches = list(dataset.as_numpy_iterator())
    for inputs, labels, *_ in batches:
        assert len(inputs[sorted(inputs)[0]]) == len(labels)


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_reported_loss_is_the_mean_over_impressions(shop, name):
    store = shop.store if MODELS[name].has_images else None
    dataset = Batches(shop.data, shop.schema, 256, store).dataset("test")
    assert [len(labels) for _, labels, *_ in dataset] == [256, 44]
    options = {"feature_map_shape": store.shape} if store else {}
    keras.utils.set_random_seed(0)
    model = build_model(name, shop.schema, **tiny(name, id_dropout=0.0), **options)
    # Untrained, all impressions would have a loss near log 2.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign_add(rng.normal(0, 0.15, weight.shape))
    losses, sizes = [], []
    for inputs, labels, *_ in dataset:
        p = np.clip(model(inputs, training=True).numpy(), 1e-7, 1 - 1e-7)
        y = labels.numpy()
        losses.append(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
        sizes.append(len(y))
    assert abs(losses[0] - losses[1]) > 1e-3
    model.compile(keras.optimizers.SGD(0.0), LOSS, jit_compile=False)
    dataset = dataset.map(lambda *batch: batch[:3])
    history = model.fit(dataset, shuffle=False, verbose=0)
    expected = np.average(losses, weights=sizes)
    assert history.history["loss"][0] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("side", SIDES)
def test_images_of_one_side(any_shop, batches, side):
    shop = any_shop
    dataset = Batches(shop.data, shop.schema, 64, shop.store, (side,)).dataset("test")
    name, other = (
        f"{side}_image",
        {"candidate": "history_image", "history": "candidate_image"},
    )
    for (both, *_), (one, *_) in zip(batches, dataset, strict=True):
        assert set(one) == set(both) - {other[side]}
        # The same maps and categories at each slot, and none beside these.
        for key in ("image_map", "image_category"):
            np.testing.assert_array_equal(
                one[key].numpy()[one[name]], both[key][both[name]]
            )
        used = np.unique(one[name]).tolist()
        real = np.flatnonzero(one["image_category"].numpy())
        assert [number for number in used if number] == real.tolist()


def test_grouping_is_for_training_only(any_shop, batches):
    shop = any_shop
    dataset = Batches(
        shop.data, shop.schema, 64, shop.store, group_by_item=True
    ).dataset("test")
    for (one, *_), (other, *_) in zip(dataset, batches, strict=True):
        np.testing.assert_array_equal(one["item_id"], other["item_id"])
