import gc
import os
import pickle

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from hccm_tf.data import ids
from hccm_tf.data.image_folder import ImageFolder
from hccm_tf.errors import InputError
from hccm_tf.images.read import decode_image

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
    assert store.skipped["missing.png"] == "no such file"
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
        assert difference.mean() < 2.5 and difference.max() < 16, name
        assert expected.std() > 10


def test_row_0_is_no_image_wherever_it_stands(store):
    pixels = store.gather(tf.constant([0, 3, 0, 1, 3, 0], tf.int64)).numpy()
    assert (pixels[[0, 2, 5]] == 0).all()
    np.testing.assert_array_equal(pixels[1], pixels[4])
    assert np.abs(pixels[1].astype(int) - pixels[3]).max() > 10
    assert store.gather(tf.zeros([2], tf.int64)).shape == (2, SIZE, SIZE, 3)


def test_pixels_are_those_of_the_other_reader(tmp_path):
    """One table of pictures, each as `extract_feature_maps` would read it."""
    photo = _picture(7, (60, 40))
    opacity = Image.linear_gradient("L").resize(photo.size)
    clear, other = photo.copy(), _picture(8, (60, 40))
    clear.putalpha(opacity)
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.asarray(photo.convert("L"))
    for name, image, options in (
        ("turned.jpg", photo, {"exif": exif}),
        ("cmyk.jpg", photo.convert("CMYK"), {}),
        ("clear.png", clear, {}),
        ("clear.webp", clear, {"lossless": True}),
        ("moving.gif", photo, {"save_all": True, "append_images": [other]}),
        ("moving.webp", photo, {"save_all": True, "append_images": [other]}),
        ("clear-moving.webp", clear, {"save_all": True, "append_images": [other]}),
        ("deep.png", Image.fromarray(grey.astype(np.uint16) * 257), {}),
        ("float.tiff", Image.fromarray(grey.astype(np.float32) / 255), {}),
        ("inside.tiff", photo, {}),
        ("../outside.png", photo, {}),
    ):
        (tmp_path / "images").mkdir(exist_ok=True)
        image.save(tmp_path / "images" / name, **options)
    (tmp_path / "images" / "link.png").symlink_to("../outside.png")
    os.mkfifo(tmp_path / "images" / "pipe.png")
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    names += ["../outside.png", "file:///dev/zero", "http://127.0.0.1:1/a.png", "none"]
    folder = tmp_path / "images"
    for allowed in ({}, {"allow_links": True, "allow_private_urls": True}):
        store = ImageFolder.open(folder, names, SIZE, **allowed)
        expected = {name: decode_image(name, folder, SIZE, **allowed) for name in names}
        reasons = {name: why for name, (_, why) in expected.items() if why is not None}
        assert store.skipped == reasons
        assert len(reasons) == (5 if allowed else 6)
        for name in set(names) - set(reasons):
            (found,) = store.gather(store.find(tf.constant([_key(name)]))).numpy()
            np.testing.assert_array_equal(found, expected[name][0])
            assert found.std() > 10


def test_images_are_read_once(folder, tmp_path):
    for name in NAMES[:2]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    store = ImageFolder.open(tmp_path, NAMES[:2], SIZE)
    rows = store.find(tf.constant([_key(name) for name in NAMES[:2]]))
    before = store.gather(rows).numpy()
    saved = pickle.dumps(store)
    np.testing.assert_array_equal(pickle.loads(saved).gather(rows), before)
    (tmp_path / NAMES[0]).unlink()
    np.testing.assert_array_equal(store.shuffled(0).gather([1, 2, 0])[2], 0)
    np.testing.assert_array_equal(store.gather(rows), before)
    # A copy in another process would read them again, and says each time what it lacks.
    other = pickle.loads(saved)
    for _ in range(2):
        with pytest.raises(InputError, match=f"^image_dir=.*{NAMES[0]}: no such file"):
            other.gather(rows)


def test_a_file_that_other_processes_map(folder, store, tmp_path):
    path = tmp_path / "pixels.u8"
    path.write_bytes(b"of a process that was killed")
    shared = ImageFolder.open(folder, NAMES, SIZE, path)
    rows = tf.range(5, dtype=tf.int64)
    np.testing.assert_array_equal(shared.gather(rows), store.gather(rows))
    pixels = np.fromfile(path, np.uint8).reshape(5, SIZE, SIZE, 3)
    np.testing.assert_array_equal(pixels, store.gather(rows))
    del shared
    gc.collect()
    assert not path.exists()


def test_a_full_disk_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="no/pixels.u8: 7 images of 24 x 24.*TMPDIR"):
        ImageFolder.open(folder, NAMES, SIZE, tmp_path / "no" / "pixels.u8")


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
    show = lambda images: images.gather(images.find(store.keys)).numpy()  # noqa: E731
    one, other = show(store), show(store.shuffled(2))
    assert (one != other).any()
    order = lambda pixels: sorted(image.tobytes() for image in pixels)  # noqa: E731
    assert order(one) == order(other)
    np.testing.assert_array_equal(show(store.shuffled(2)), other)


def test_no_image_at_all(tmp_path):
    for names in ([], ["x.png"]):
        store = ImageFolder.open(tmp_path, names, SIZE)
        assert len(store.keys) == 0 and list(store.skipped) == names
        assert store.find(tf.constant([1, 0])).numpy().tolist() == [0, 0]
