import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data.pipeline import (
    SIDES,
    data_files,
    deduplicate,
    epoch_seed,
    make_dataset,
    num_examples,
    padded_size,
)
from hccm_tf.errors import InputError
from hccm_tf.models import IMAGE_MODELS, MODELS, PIXEL_MODELS, build_model
from tests.conftest import TINY
from tests.reference import read_maps, vocabulary_index


@pytest.mark.parametrize("seed", range(5))
def test_deduplicate_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    batch, length = rng.integers(1, 12, 2)
    candidate_rows = rng.integers(0, 6, batch)
    history_rows = rng.integers(0, 6, (batch, length))
    candidate_category = rng.integers(1, 4, batch).astype(np.int32)
    # Padding has category 0, a click without image has its own.
    history_category = rng.integers(1, 4, (batch, length)).astype(np.int32)
    padding = rng.random((batch, length)) < 0.3
    history_rows[padding] = history_category[padding] = 0
    rows, category, candidate_image, history_image = (
        tensor.numpy()
        for tensor in deduplicate(
            *map(tf.constant, (candidate_rows, candidate_category)),
            *map(tf.constant, (history_rows, history_category)),
        )
    )
    slots = [
        *zip(candidate_rows, candidate_category, candidate_image, strict=True),
        *zip(history_rows.flat, history_category.flat, history_image.flat, strict=True),
    ]
    for row, kind, place in slots:
        if row == 0:
            assert place == 0
        else:
            assert (rows[place], category[place]) == (row, kind)
    assert (rows[0], category[0]) == (0, 0)
    expected = {(row, kind) for row, kind, _ in slots if row}
    real = [pair for pair in zip(rows, category, strict=True) if pair[0]]
    assert len(real) == len(set(real)) and set(real) == expected
    assert (category[rows == 0] == 0).all()
    assert len(rows) == padded_size(tf.constant(len(expected) + 1, tf.int64)).numpy()


def test_padded_size():
    counts = tf.data.Dataset.range(1, 4200)
    sizes = [int(size) for size in counts.map(padded_size).as_numpy_iterator()]
    for n, size in enumerate(sizes, start=1):
        assert n <= size <= 1.125 * n
    for power in range(5, 12):
        octave = {s for n, s in enumerate(sizes, 1) if 2**power < n <= 2 ** (power + 1)}
        assert len(octave) <= 8


@pytest.fixture(scope="module")
def batches(shop):
    dataset = make_dataset(shop.data, "test", shop.schema, 64, shop.store)
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
    dataset = make_dataset(shop.data, split, shop.schema, 100, shuffle_seed=1)
    sizes = [len(labels) for _, labels, _ in dataset]
    total = int((shop.log.split == split).sum())
    assert sum(sizes) == num_examples(shop.data, split) == total
    assert len(sizes) == dataset.cardinality().numpy() == -(-total // 100)


def test_shuffling_is_seeded_and_loses_nothing(shop):
    def order(seed):
        dataset = make_dataset(shop.data, "train", shop.schema, 50, shuffle_seed=seed)
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
    data = _copied(shop, tmp_path / "data", files)

    def rows(part, **arguments):
        dataset = make_dataset(data, "train", shop.schema, 64, part=part, **arguments)
        columns = [(x["price"], x["item_id"], u) for x, _, u in dataset]
        return list(zip(*(np.concatenate(c).tolist() for c in zip(*columns))))  # noqa: B905

    for arguments in ({"shuffle_seed": 3}, {}):
        whole = rows((0, 1), **arguments)
        parts = [rows((index, 2), **arguments) for index in (0, 1)]
        assert len(whole) == files * 1050
        assert sorted(parts[0] + parts[1]) == sorted(whole)
        assert abs(len(parts[0]) - len(parts[1])) <= 64
    # A later beginning is the end of the same order, and begins again with the first.
    whole = rows((0, 2), shuffle_seed=3)
    assert rows((0, 2), shuffle_seed=3, skip=2) == whole[128:]
    again = make_dataset(
        data, "train", shop.schema, 64, None, 3, part=(0, 2), skip=2, repeat=True
    )
    count = -(-len(whole) // 64)
    users = [batch[2].numpy().tolist() for batch in again.take(count)]
    assert users[count - 2] == [row[2] for row in whole[:64]]


@pytest.mark.parametrize("name", [n for n in MODELS if n not in PIXEL_MODELS])
def test_keras_weighs_the_loss_by_the_impressions(shop, batches, name):
    # Keras takes the number of examples from the first tensor in the dict's order.
    if name not in IMAGE_MODELS:
        dataset = make_dataset(shop.data, "test", shop.schema, 64)
        batches = list(dataset.as_numpy_iterator())
    for inputs, labels, _ in batches:
        assert len(inputs[sorted(inputs)[0]]) == len(labels)


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_reported_loss_is_the_mean_over_impressions(shop, name):
    store = shop.store if name in IMAGE_MODELS else None
    dataset = make_dataset(shop.data, "test", shop.schema, 256, store)
    assert [len(labels) for _, labels, _ in dataset] == [256, 44]
    options = {"feature_map_shape": store.shape} if store else {}
    keras.utils.set_random_seed(0)
    model = build_model(name, shop.schema, id_dropout=0.0, **TINY, **options)
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
    dataset = make_dataset(
        shop.data, "test", shop.schema, 64, shop.store, sides=(side,)
    )
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


def _groups(shop, seed, batch_size=50, grouped=True):
    """The dataset, and of each batch of one epoch what the tests look at."""
    dataset = make_dataset(
        shop.data,
        "train",
        shop.schema,
        batch_size,
        shop.store,
        shuffle_seed=seed,
        sides=("candidate",),
        group_by_item=grouped,
    )
    return dataset, [
        (inputs["item_id"], inputs["image"], inputs["image_map"], labels, users)
        for inputs, labels, users in dataset.as_numpy_iterator()
    ]


@pytest.mark.parametrize("window", [10_000, 200])
def test_grouping_by_item_loses_nothing(shop, monkeypatch, window):
    monkeypatch.setattr("hccm_tf.data.pipeline.SHUFFLE_BUFFER", window)
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


def test_grouping_is_for_training_only(shop, batches):
    dataset = make_dataset(
        shop.data, "test", shop.schema, 64, shop.store, group_by_item=True
    )
    for (one, _, _), (other, _, _) in zip(dataset, batches, strict=True):
        np.testing.assert_array_equal(one["item_id"], other["item_id"])


def test_missing_split_and_folder(shop, tmp_path):
    with pytest.raises(InputError, match="split other"):
        data_files(shop.data, "other")
    with pytest.raises(InputError, match="other"):
        num_examples(shop.data, "other")
    with pytest.raises(InputError, match="dataset_info.json"):
        num_examples(tmp_path, "train")
