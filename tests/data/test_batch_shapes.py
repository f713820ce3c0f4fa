"""How many shapes the batches have, and which columns they read."""

import collections
import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data.dataset import WIDTH_STEP, Batches
from hccm_tf.data.deduplication import padded_size
from hccm_tf.data.folder import DataFolder
from hccm_tf.preparation.examples.build import build_examples

LONG = 2 * WIDTH_STEP - 6
SIZE = 48


@pytest.fixture(scope="module")
def long_histories(weighted_shop, tmp_path_factory):
    """Path of a data folder of the same log, whose histories are longer."""
    data = tmp_path_factory.mktemp("long") / "data"
    build_examples(
        weighted_shop.items, weighted_shop.impressions, data, max_history=LONG
    )
    return data


@pytest.mark.parametrize("grouped", [False, True])
def test_few_shapes_occur(weighted_shop, long_histories, grouped):
    tf.random.set_seed(0)  # on which the order depends, too
    folder = DataFolder(long_histories)
    schema, store = folder.schema(), weighted_shop.store
    batches = Batches(long_histories, schema, SIZE, store, group_by_item=grouped)
    shapes = collections.defaultdict(list)
    for epoch in range(2):
        for inputs, labels, weights, keys in batches.dataset("train", epoch):
            named = {**inputs, **keys, "label": labels, "weight": weights}
            for name, value in named.items():
                shapes[name].append(value.shape.as_list())
    count = len(shapes["label"]) // 2
    requests = SIZE if grouped else batches.requests_per_batch("train")
    total = getattr(folder, "num_impressions" if grouped else "num_requests")("train")
    width = 1 if grouped else folder.max_candidates
    last = total - (count - 1) * requests
    assert 0 < last < requests
    sizes = 2 * ([requests] * (count - 1) + [last])
    candidates = {f.name for f in schema.scalars if f.candidate}
    candidates |= {"candidate_mask", "candidate_image", "row", "weight"}
    histories = {f.name for f in schema.sequences} | {"history_image"}
    images = {"image_map", "image_category"}
    for name in candidates:
        assert shapes[name] == [[size, width] for size in sizes]
    assert shapes["label"] == [[size, width, 1] for size in sizes]
    for name in set(shapes) - candidates - histories - images - {"label"}:
        assert shapes[name] == [[size] for size in sizes], name
    widths = [shape[1] for shape in shapes["history_image"]]
    # Of 48 impressions of all users, one always has a long history.
    assert set(widths) == ({LONG} if grouped else {WIDTH_STEP, LONG})
    for name in histories:
        assert shapes[name] == [list(pair) for pair in zip(sizes, widths, strict=True)]
    unique = [shape[0] for shape in shapes["image_map"]]
    assert shapes["image_map"] == [[size, *store.shape] for size in unique]
    assert shapes["image_category"] == [[size] for size in unique]
    sizes = tf.range(1, 1_000, dtype=tf.int64)
    assert set(unique) <= {int(padded_size(size)) for size in sizes}
    assert len(set(unique)) < len(unique)


def _damaged(shop, folder, names):
    """A copy of the data folder whose test records have other types in columns."""
    shutil.copytree(shop.data, folder)
    for path in DataFolder(folder).files("test"):
        records = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
        with tf.io.TFRecordWriter(path) as writer:
            for record in records:
                example = tf.train.Example.FromString(record)
                for name in names:
                    example.features.feature[name].bytes_list.value[:] = [b"damaged"]
                writer.write(example.SerializeToString())
    return folder


@pytest.mark.parametrize(
    ("with_images", "sides", "unread"),
    [
        (False, ("candidate", "history"), {"image", "history_image"}),
        (True, ("candidate",), {"history_image"}),
        (True, ("history",), {"image"}),
        (True, ("candidate", "history"), set()),
    ],
)
def test_what_a_model_does_not_read_is_not_parsed(
    weighted_shop, tmp_path, with_images, sides, unread
):
    features = [f for f in weighted_shop.schema.features if f.name != "image"]
    schema = dataclasses.replace(weighted_shop.schema, features=tuple(features))
    batches = Batches(
        _damaged(weighted_shop, tmp_path / "unread", unread),
        schema,
        SIZE,
        weighted_shop.store if with_images else None,
        sides,
    )
    plain = dataclasses.replace(batches, data_dir=weighted_shop.data)
    pairs = zip(batches.dataset("test"), plain.dataset("test"), strict=True)
    for found, expected in pairs:
        tf.nest.map_structure(np.testing.assert_array_equal, found, expected)
    for name in {"image", "history_image"} - unread:
        data = _damaged(weighted_shop, tmp_path / name, [name])
        damaged = dataclasses.replace(batches, data_dir=data).dataset("test")
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"Key: {name}"):
            next(iter(damaged))


def test_a_feature_of_the_image_is_read(weighted_shop, tmp_path):
    """It is an id like others, also for a model without images."""
    data = _damaged(weighted_shop, tmp_path / "data", ["image"])
    damaged = Batches(data, weighted_shop.schema, SIZE).dataset("test")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Key: image"):
        next(iter(damaged))
