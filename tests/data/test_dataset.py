import json
import shutil

import keras
import numpy as np
import pytest

from hccm_tf.data.dataset import Batches
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.image_inputs import SIDES
from hccm_tf.models import MODELS, build_model
from tests.conftest import tiny
from tests.reference import read_maps, vocabulary_index


@pytest.fixture(scope="module")
def batches(shop):
    dataset = Batches(shop.data, shop.schema, 64, shop.store).dataset("test")
    return list(dataset.as_numpy_iterator())


def test_batches_equal_the_log(shop, batches):
    log, train = shop.log, shop.log[shop.log.split == "train"]
    maps = read_maps(shop.maps)
    nothing = np.zeros(shop.store.shape, np.float16)
    price = train.price.astype(np.float32).astype(float)
    index = {
        name: {value: vocabulary_index(train[name], value) for value in set(log[name])}
        for name in ("user_id", "item_id", "category", "hour")
    }
    test = log[log.split == "test"].reset_index()
    start = 0
    for inputs, labels, users in batches:
        part = test.iloc[start : start + len(labels)]
        start += len(labels)
        np.testing.assert_array_equal(labels, part.label.to_numpy()[:, None])
        np.testing.assert_array_equal(users, part.user_id)
        for name, table in index.items():
            np.testing.assert_array_equal(inputs[name], part[name].map(table))
        np.testing.assert_allclose(
            inputs["price"], (part.price - price.mean()) / price.std(ddof=0), atol=1e-5
        )
        for place, row in enumerate(part.itertuples()):
            length = len(row.history)
            clicks = log.loc[row.history]
            for name in ("item_id", "category"):
                history = inputs[f"history_{name}"][place]
                assert history[:length].tolist() == [*clicks[name].map(index[name])]
                assert (history[length:] == 0).all()
            slots = [inputs["candidate_image"][place], *inputs["history_image"][place]]
            images = [row.image, *clicks.image]
            categories = [row.category, *clicks.category]
            for slot, image, category in zip(slots, images, categories, strict=False):
                expected = maps.get(image, nothing)
                np.testing.assert_array_equal(inputs["image_map"][slot], expected)
                assert (slot == 0) == (image not in maps)
                if slot:
                    kind = inputs["image_category"][slot]
                    assert kind == index["category"][category]
            assert (inputs["history_image"][place][length:] == 0).all()
    assert start == len(test)


def test_the_shop_has_the_awkward_cases(shop, batches):
    history_lengths = shop.log.history[shop.log.split == "test"].map(len)
    assert history_lengths.max() == shop.schema.max_history
    assert shop.log[shop.log.split == "test"].image.eq("").any()
    assert any((inputs["item_id"] == 1).any() for inputs, _, _ in batches)
    assert "image" in shop.schema


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_batches_add_up_to_the_split(shop, split):
    dataset = Batches(shop.data, shop.schema, 100).dataset(split, epoch=1)
    sizes = [len(labels) for _, labels, _ in dataset]
    total = int((shop.log.split == split).sum())
    assert sum(sizes) == DataFolder(shop.data).num_impressions(split) == total
    assert len(sizes) == dataset.cardinality().numpy() == -(-total // 100)


def test_shuffling_is_seeded_and_loses_nothing(shop):
    def order(seed):
        dataset = Batches(shop.data, shop.schema, 50).dataset("train", epoch=seed)
        return np.concatenate([inputs["price"] for inputs, _, _ in dataset])

    assert (order(1) == order(1)).all()
    assert (order(1) != order(2)).any()
    np.testing.assert_array_equal(np.sort(order(1)), np.sort(order(2)))


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
    return folder


@pytest.mark.parametrize("files", [1, 3, 4])
def test_parts_are_disjoint_and_whole(shop, tmp_path, files):
    batches = Batches(_copied(shop, tmp_path / "data", files), shop.schema, 64)

    def rows(part, **arguments):
        dataset = batches.dataset("train", part=part, **arguments)
        columns = [(x["price"], x["item_id"], u) for x, _, u in dataset]
        return list(zip(*(np.concatenate(c).tolist() for c in zip(*columns))))  # noqa: B905

    for arguments in ({"epoch": 3}, {}):
        whole = rows((0, 1), **arguments)
        parts = [rows((index, 2), **arguments) for index in (0, 1)]
        assert len(whole) == files * 1050
        assert sorted(parts[0] + parts[1]) == sorted(whole)
        assert abs(len(parts[0]) - len(parts[1])) <= 64
    # A later beginning is the end of the same order, and begins again with the first.
    whole = rows((0, 2), epoch=3)
    assert rows((0, 2), epoch=3, skip=2) == whole[128:]
    again = batches.dataset("train", epoch=3, part=(0, 2), skip=2, repeat=True)
    count = -(-len(whole) // 64)
    users = [batch[2].numpy().tolist() for batch in again.take(count)]
    assert users[count - 2] == [row[2] for row in whole[:64]]


@pytest.mark.parametrize(
    "name", [n for n, model in MODELS.items() if not model.takes_pixels]
)
def test_keras_weighs_the_loss_by_the_impressions(shop, batches, name):
    # Keras takes the number of examples from the first tensor in the dict's order.
    if not MODELS[name].has_images:
        dataset = Batches(shop.data, shop.schema, 64).dataset("test")
        batches = list(dataset.as_numpy_iterator())
    for inputs, labels, _ in batches:
        assert len(inputs[sorted(inputs)[0]]) == len(labels)


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_reported_loss_is_the_mean_over_impressions(shop, name):
    store = shop.store if MODELS[name].has_images else None
    dataset = Batches(shop.data, shop.schema, 256, store).dataset("test")
    assert [len(labels) for _, labels, _ in dataset] == [256, 44]
    options = {"feature_map_shape": store.shape} if store else {}
    keras.utils.set_random_seed(0)
    model = build_model(name, shop.schema, **tiny(name, id_dropout=0.0), **options)
    # Untrained, all impressions would have a loss near log 2.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign_add(rng.normal(0, 0.15, weight.shape))
    losses, sizes = [], []
    for inputs, labels, _ in dataset:
        p = np.clip(model(inputs, training=True).numpy(), 1e-7, 1 - 1e-7)
        y = labels.numpy()
        losses.append(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
        sizes.append(len(y))
    assert abs(losses[0] - losses[1]) > 1e-3
    model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy", jit_compile=False)
    history = model.fit(
        dataset.map(lambda x, y, user: (x, y)), shuffle=False, verbose=0
    )
    expected = np.average(losses, weights=sizes)
    assert history.history["loss"][0] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("side", SIDES)
def test_images_of_one_side(shop, batches, side):
    dataset = Batches(shop.data, shop.schema, 64, shop.store, (side,)).dataset("test")
    name, other = (
        f"{side}_image",
        {"candidate": "history_image", "history": "candidate_image"},
    )
    for (both, _, _), (one, _, _) in zip(batches, dataset, strict=True):
        assert set(one) == set(both) - {other[side]}
        # The same maps and categories at each slot, and none beside these.
        for key in ("image_map", "image_category"):
            np.testing.assert_array_equal(
                one[key].numpy()[one[name]], both[key][both[name]]
            )
        used = np.unique(one[name]).tolist()
        real = np.flatnonzero(one["image_category"].numpy())
        assert [number for number in used if number] == real.tolist()


def test_grouping_is_for_training_only(shop, batches):
    dataset = Batches(
        shop.data, shop.schema, 64, shop.store, group_by_item=True
    ).dataset("test")
    for (one, _, _), (other, _, _) in zip(dataset, batches, strict=True):
        np.testing.assert_array_equal(one["item_id"], other["item_id"])
