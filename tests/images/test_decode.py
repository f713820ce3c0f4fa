import concurrent.futures
import contextlib
import io
import os
import struct
import threading

import numpy as np
import pytest
from PIL import Image

from hccm_tf.images import decode as decode_module
from hccm_tf.images import read
from hccm_tf.images.budget import Budget
from hccm_tf.images.read import decode_image, decode_images

SIZE = 24


def ramp(height, width):
    """Red grows to the right, green downwards: no flip or turn looks the same."""
    red = np.broadcast_to(np.linspace(20, 235, width)[None], (height, width))
    green = np.broadcast_to(np.linspace(20, 235, height)[:, None], (height, width))
    return np.stack([red, green, np.full_like(red, 90)], -1).round().astype(np.uint8)


def area_mean(array, size=SIZE):
    """Mean over each cell of a `size` × `size` grid, which must divide the array."""
    height, width, channels = array.shape
    cells = array.reshape(size, height // size, size, width // size, channels)
    return cells.astype(np.float64).mean((1, 3))


def encoded(array, file_format, mode=None, **options):
    """Bytes of an image file."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array, mode)
    handle = io.BytesIO()
    image.save(handle, file_format, **options)
    return handle.getvalue()


def decode(tmp_path, content, **options):
    (tmp_path / "image").write_bytes(content)
    return decode_image("image", tmp_path, SIZE, **options)


def assert_shows(result, expected, tolerance=3):
    pixels, reason = result
    assert reason is None
    assert pixels.dtype == np.uint8 and pixels.shape == (SIZE, SIZE, 3)
    # A triangle filter sees beyond its cell: nothing at the border to compare with.
    error = np.abs(pixels.astype(np.float64) - area_mean(expected))[1:-1, 1:-1]
    assert error.max() <= tolerance


PHOTO = ramp(192, 288)
GREY = np.repeat(PHOTO[:, :, :1], 3, axis=-1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(PHOTO, "JPEG", quality=95, subsampling=0), PHOTO),
        (encoded(PHOTO, "JPEG", quality=95, progressive=True), PHOTO),
        (encoded(PHOTO, "PNG"), PHOTO),
        (encoded(PHOTO, "WEBP", lossless=True), PHOTO),
        (encoded(GREY[:, :, 0], "JPEG", quality=95), GREY),
        (encoded(GREY[:, :, 0], "PNG"), GREY),
        (encoded(GREY[:, :, 0].astype(np.uint16) * 257, "PNG"), GREY),
        (encoded(GREY[:, :, 0].astype(np.uint16) * 257, "TIFF"), GREY),
        (encoded(GREY[:, :, 0], "GIF"), GREY),
    ],
    ids=[
        "jpeg",
        "progressive",
        "png",
        "webp",
        "grey-jpeg",
        "grey",
        "grey16",
        "tiff16",
        "gif",
    ],
)
def test_formats(tmp_path, content, expected):
    assert_shows(decode(tmp_path, content), expected)


# Values of grey from 0 to 1, stored as they come from cameras and laboratories.
DEEP = {
    "float32, 0 to 1": lambda grey: grey.astype(np.float32),
    "float32, 0 to 255": lambda grey: (grey * 255).astype(np.float32),
    "float32, 0 to 65535": lambda grey: (grey * 65535).astype(np.float32),
    "int32, 0 to 255": lambda grey: (grey * 255).round().astype(np.int32),
    "int32, 0 to 65535": lambda grey: (grey * 65535).round().astype(np.int32),
    "int32, of 32 bits": lambda grey: (grey * (2**32 - 1)).astype(np.uint32),
    "uint16": lambda grey: (grey * 65535).round().astype(np.uint16),
}


def tiff(values, sample_format):
    """A TIFF of one strip, written without Pillow, which cannot write all of these."""
    height, width = values.shape
    entries = {
        256: width,
        257: height,
        258: 8 * values.itemsize,
        259: 1,
        262: 1,
        273: 8 + 2 + 9 * 12 + 4,
        278: height,
        279: values.nbytes,
        339: sample_format,
    }
    fields = (struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    return head + b"".join(fields) + bytes(4) + values.tobytes()


@pytest.mark.parametrize("kind", DEEP)
def test_grey_of_more_than_8_bits(tmp_path, kind):
    values = DEEP[kind](GREY[:, :, 0] / 255)
    sample_format = {"f": 3, "i": 2, "u": 1}[values.dtype.kind]
    assert_shows(decode(tmp_path, tiff(values, sample_format)), GREY)


def test_grey_that_is_none(tmp_path):
    grey = np.full((8, 8), 0.5, np.float32)
    for value, word in (
        (np.nan, "no finite"),
        (np.inf, "no finite"),
        (1e12, "32 bits"),
    ):
        grey[3, 4] = value
        assert word in decode(tmp_path, tiff(grey, 3))[1]
    # A little below black, as filters leave it, is black.
    grey[:] = [[-0.1] * 8] * 4 + [[1] * 8] * 4
    pixels, _ = decode(tmp_path, tiff(grey, 3))
    assert (pixels[0] == 0).all() and (pixels[-1] == 255).all()


def test_cmyk(tmp_path):
    ink = np.dstack([255 - PHOTO, np.zeros(PHOTO.shape[:2], np.uint8)])
    content = encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=95, subsampling=0)
    assert_shows(decode(tmp_path, content), PHOTO)


def test_palette(tmp_path):
    colours = np.stack([np.arange(256), 255 - np.arange(256), np.full(256, 90)], -1)
    image = Image.fromarray(PHOTO[:, :, 0], "P")
    image.putpalette(colours.astype(np.uint8).tobytes())
    for file_format in ("PNG", "GIF"):
        content = encoded(image, file_format)
        assert_shows(decode(tmp_path, content), colours[PHOTO[:, :, 0]])


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(array) for array in (GREY, 255 - GREY)]
    for file_format in ("GIF", "WEBP"):
        content = encoded(
            frames[0], file_format, save_all=True, append_images=frames[1:]
        )
        assert_shows(decode(tmp_path, content), GREY, tolerance=5)


def test_transparency_lies_on_white(tmp_path):
    opacity = PHOTO[:, :, 0]
    black = np.zeros_like(PHOTO)
    rgba = np.dstack([black, opacity])
    expected = 255 - np.repeat(opacity[:, :, None], 3, axis=-1)
    for file_format in ("PNG", "WEBP"):
        assert_shows(decode(tmp_path, encoded(rgba, file_format)), expected)
    grey_alpha = np.dstack([black[:, :, 0], opacity])
    assert_shows(decode(tmp_path, encoded(grey_alpha, "PNG")), expected)


def test_transparent_colour(tmp_path):
    # The left half has the colour that is declared transparent.
    left = (np.arange(288) < 144)[None, :, None]
    shown = np.where(left, 10, np.full((192, 288, 3), 200)).astype(np.uint8)
    expected = np.where(left, 255, shown)
    palette = Image.fromarray(shown[:, :, 0], "P")
    palette.putpalette(np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
    for content in (
        encoded(shown, "PNG", transparency=(10, 10, 10)),
        encoded(shown[:, :, 0], "PNG", transparency=10),
        encoded(palette, "PNG", transparency=10),
        encoded(palette, "GIF", transparency=10),
    ):
        pixels, _ = decode(tmp_path, content)
        away = np.abs(np.arange(SIZE) - SIZE / 2 + 0.5) > 1
        np.testing.assert_allclose(
            pixels[:, away], area_mean(expected)[:, away], atol=1
        )


# How the stored pixels have to be turned to stand upright, undone (Exif 2.3, 4.6.4).
LAID = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", LAID)
def test_exif_orientation(tmp_path, file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(LAID[orientation](PHOTO))
    content = encoded(stored, file_format, exif=exif, quality=95)
    assert_shows(decode(tmp_path, content), PHOTO, tolerance=8)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_does_not_cost_the_image(tmp_path):
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0"):
        content = encoded(PHOTO, "JPEG", quality=95, subsampling=0, exif=exif)
        assert_shows(decode(tmp_path, content), PHOTO)


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    whole = encoded(np.zeros((300, 200, 3), np.uint8), "PNG")
    assert decode(tmp_path, whole, max_pixels=60_000)[1] is None
    # Nothing but the header is there: decoding would find the file truncated.
    photo = encoded(PHOTO, "JPEG")
    for content in (
        whole[: whole.index(b"IDAT") + 4],
        photo[: photo.index(b"\xff\xda") + 20],
    ):
        assert "truncated" in decode(tmp_path, content)[1]
        pixels, reason = decode(tmp_path, content, max_pixels=50_000)
        assert pixels is None and "max_pixels=50000" in reason
    # Beyond the size at which Pillow itself refuses.
    header = bytearray(encoded(np.zeros((1, 1), np.uint8), "BMP"))
    header[18:26] = np.array([30_000, 30_000], "<i4").tobytes()
    reason = decode(tmp_path, bytes(header))[1]
    assert "30000 × 30000" in reason
    reason = decode(tmp_path, bytes(header), max_pixels=10**9)[1]
    assert "truncated" in reason


@pytest.mark.filterwarnings("error")
def test_pillows_own_guard_stays_on(tmp_path, monkeypatch):
    """It is one for the whole process, in which a user may open images too."""
    assert Image.MAX_IMAGE_PIXELS is not None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    content = encoded(PHOTO, "PNG")
    at_once = threading.Barrier(3)

    def open_with_pillow():
        at_once.wait()
        for _ in range(50):
            with pytest.raises(Image.DecompressionBombError):
                Image.open(io.BytesIO(content))

    def decode_here():
        at_once.wait()
        for _ in range(50):
            assert_shows(decode(tmp_path, content), PHOTO)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = [pool.submit(call) for call in (open_with_pillow, decode_here)]
        at_once.wait()
        for future in found:
            future.result()
    assert Image.MAX_IMAGE_PIXELS == 10_000


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no image")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "half").write_bytes(encoded(PHOTO, "PNG")[:500])
    for name, word in {
        "none.jpg": "no such file",
        "folder": "cannot be read: it is a folder",
        "a\0b": "cannot be read",
        "x" * 5000: "cannot be read: File name too long",
        "text": "cannot be decoded: none of JPEG, PNG, WEBP, GIF",
        "empty": "cannot be decoded: none of",
        "half": "cannot be decoded",
    }.items():
        pixels, reason = decode_image(name, tmp_path, SIZE)
        assert pixels is None and reason.startswith(word)
        # The store's skipped.csv is the same on every machine.
        assert "\n" not in reason and str(tmp_path) not in reason


def test_junk_is_not_searched_to_its_end(tmp_path):
    """Pillow would look at each byte for the next part of a JPEG, for a minute."""
    content = encoded(PHOTO, "JPEG")[:20] + bytes(2**26)
    reason = decode(tmp_path, content)[1]
    assert reason == "cannot be decoded: no image data after so much else"


def test_pixels_in_flight_are_bounded(tmp_path, monkeypatch):
    """However many threads there are; what is held is more than Pillow takes."""
    (tmp_path / "image").write_bytes(encoded(PHOTO, "PNG"))
    total, lock, now, most = 5 * PHOTO.size // 3 * 20, threading.Lock(), [0], [0]
    budget = Budget(total)

    class Recorded:
        @contextlib.contextmanager
        def hold(self, amount):
            with budget.hold(amount):
                with lock:
                    now[0] += amount
                    most[0] = max(most[0], now[0])
                yield
                with lock:
                    now[0] -= amount

    monkeypatch.setattr(decode_module, "DECODING", Recorded())
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    results = decode_images(["image"] * 200, tmp_path, SIZE, ahead=200)
    assert all(reason is None for _, reason in results)
    assert 0 < most[0] <= total and now == [0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_damage_is_an_exception(tmp_path):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    small = np.ascontiguousarray(PHOTO[::6, ::6])
    sources = [
        np.frombuffer(encoded(small, file_format, exif=exif), np.uint8)
        for file_format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF")
    ]
    outcomes = set()
    for turn in range(400):
        content = sources[turn % len(sources)].copy()
        places = rng.integers(min(len(content), 400), size=1 + turn % 7)
        content[places] = rng.integers(256, size=len(places))
        end = rng.integers(len(content)) if turn % 3 == 0 else len(content)
        pixels, reason = decode(tmp_path, content[:end].tobytes(), max_pixels=10**6)
        assert (pixels is None) == isinstance(reason, str)
        outcomes.add(reason is None)
    assert outcomes == {True, False}


def test_decoding_goes_ahead_of_the_caller_but_not_far(monkeypatch):
    lock, started, reached = threading.Lock(), [], threading.Event()

    def decode_one(image, *_):
        with lock:
            started.append(image)
            if len(started) == 9:
                reached.set()
        return image, None

    monkeypatch.setattr(read, "decode_image", decode_one)
    names = [f"{number}.jpg" for number in range(50)]
    results = decode_images(names, "", SIZE, ahead=8)
    assert next(results) == ("0.jpg", None)
    # Without being asked for, eight more are decoded, and no ninth.
    assert reached.wait(10)
    for number, result in enumerate(results, start=1):
        assert result == (f"{number}.jpg", None)
        assert len(started) <= number + 9
    assert sorted(started) == sorted(names)
