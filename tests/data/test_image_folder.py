import pickle

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from hccm_tf.data import ids
from hccm_tf.data.image_folder import ImageFolder

SIZE = 24
NAMES = ["a.png", "b.jpg", "c.gif", "d.bmp", "cut.jpg", "text.jpg", "missing.png"]


def _key(name):
    return ids.image_keys(tf.constant([name])).numpy()[0]


def _picture(seed, size):
    """A smooth picture, so that ways to resize it agree."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, (3, 3, 3)).astype(np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(NAMES[:5]):
        _picture(seed, (40 + 9 * seed, 64)).save(path / name)
    (path / "cut.jpg").write_bytes((path / "cut.jpg").read_bytes()[:500])
    (path / "text.jpg").write_text("no picture")
    return path


@pytest.fixture(scope="module")
def store(folder):
    return ImageFolder.open(folder, NAMES, SIZE)


def test_unreadable_images_are_named(store):
    assert set(store.skipped) == {"cut.jpg", "text.jpg", "missing.png"}
    keys = tf.constant([[_key(name) for name in NAMES], [0, 1, 2, 3, 4, 5, 6]])
    rows = store.find(keys).numpy()
    assert sorted(rows[0, :4]) == [1, 2, 3, 4]
    assert (rows[0, 4:] == 0).all() and (rows[1] == 0).all()
    assert store.shape == (SIZE, SIZE, 3)
    assert store.cnn == {"backbone": None, "image_size": SIZE}


def test_pixels_against_pillow(store, folder):
    for name in NAMES[:4]:
        rows = store.find(tf.constant([_key(name)]))
        pixels = store.gather(rows).numpy()
        assert pixels.dtype == np.uint8 and pixels.shape == (1, SIZE, SIZE, 3)
        image = Image.open(folder / name).convert("RGB")
        expected = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        difference = np.abs(pixels[0].astype(int) - expected)
        # Decoders and resizing round differently.
        assert difference.mean() < 1.5 and difference.max() < 12, name
        assert expected.std() > 10


def test_row_0_is_no_image_wherever_it_stands(store):
    pixels = store.gather(tf.constant([0, 3, 0, 1, 3, 0], tf.int64)).numpy()
    assert (pixels[[0, 2, 5]] == 0).all()
    np.testing.assert_array_equal(pixels[1], pixels[4])
    assert np.abs(pixels[1].astype(int) - pixels[3]).max() > 10
    assert store.gather(tf.zeros([2], tf.int64)).shape == (2, SIZE, SIZE, 3)


def test_only_rows_that_are_asked_for_are_read(folder, tmp_path):
    for name in NAMES[:2]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    store = ImageFolder.open(tmp_path, NAMES[:2], SIZE)
    (tmp_path / NAMES[0]).unlink()
    kept = store.find(tf.constant([0, _key(NAMES[1])]))
    assert store.gather(kept).numpy()[1].any()
    with pytest.raises(tf.errors.NotFoundError):
        store.gather(store.find(tf.constant([_key(NAMES[0])])))


def test_in_a_pipeline_and_pickled(store):
    rows = tf.constant([[1, 2], [0, 4]], tf.int64)
    expected = [store.gather(row).numpy() for row in rows]
    copy = pickle.loads(pickle.dumps(store))
    # The second pipeline, and what stands outside one, share nothing with the first.
    for _ in range(2):
        dataset = tf.data.Dataset.from_tensor_slices(rows).map(copy.gather)
        assert dataset.element_spec.shape[1:] == store.shape
        for pixels, other in zip(dataset, expected, strict=True):
            np.testing.assert_array_equal(pixels, other)
    np.testing.assert_array_equal(copy.gather(rows[0]), expected[0])


def test_shuffled_deals_the_same_images_out(store):
    shuffled = store.shuffled(2)
    rows = tf.range(1, 5, dtype=tf.int64)
    one, other = store.gather(rows).numpy(), shuffled.gather(rows).numpy()
    assert (one != other).any()
    order = lambda pixels: sorted(image.tobytes() for image in pixels)  # noqa: E731
    assert order(one) == order(other)
    np.testing.assert_array_equal(store.shuffled(2).gather(rows), other)


def test_no_image_at_all(tmp_path):
    for names in ([], ["x.png"]):
        store = ImageFolder.open(tmp_path, names, SIZE)
        assert len(store.keys) == 0 and store.skipped == tuple(names)
        assert store.find(tf.constant([1, 0])).numpy().tolist() == [0, 0]
