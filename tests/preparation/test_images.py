import concurrent.futures
import http.server
import io
import threading

import numpy as np
import pytest
from PIL import Image

from hccm_tf.errors import InputError
from hccm_tf.preparation import images
from hccm_tf.preparation.images import decode_image, decode_images

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
        (encoded(GREY[:, :, 0], "GIF"), GREY),
    ],
    ids=["jpeg", "progressive", "png", "webp", "grey-jpeg", "grey", "grey16", "gif"],
)
def test_formats(tmp_path, content, expected):
    assert_shows(decode(tmp_path, content), expected)


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
        "folder": "cannot be read: Is a directory",
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


@pytest.fixture
def server(monkeypatch):
    """URL of a server on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    photo = encoded(PHOTO, "JPEG", quality=95, subsampling=0)
    end = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/photo%20%C3%A4.jpg?w=1&h=2":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(photo)
            elif self.path == "/moved":
                self.send_response(301)
                self.send_header("Location", "/photo%20%C3%A4.jpg?w=1&h=2")
                self.end_headers()
            elif self.path == "/cut":
                self.send_response(200)
                self.send_header("Content-Length", str(len(photo)))
                self.end_headers()
                self.wfile.write(photo[:600])
            elif self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                while not end.is_set():
                    self.wfile.write(b"\xff" * 1000)
            elif self.path == "/drip":
                self.send_response(200)
                self.end_headers()
                for _ in range(200):
                    end.wait(0.01)
                    self.wfile.write(b"\xff")
            elif self.path == "/silent":
                end.wait()
            else:
                self.send_error(404)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        end.set()
        running.shutdown()
        thread.join()


def test_urls(server, monkeypatch):
    for name in ("photo ä.jpg?w=1&h=2", "photo%20%C3%A4.jpg?w=1&h=2", "moved"):
        assert_shows(decode_image(f"{server}/{name}", None, SIZE), PHOTO)
    monkeypatch.setattr(images, "MAX_BYTES", 100_000)
    monkeypatch.setattr(images, "TIMEOUT", 0.3)
    for url, word in {
        f"{server}/none.jpg": "cannot be read: HTTP Error 404",
        f"{server}/cut": "cannot be decoded: ",
        f"{server}/endless": "cannot be read: more than 100000 bytes",
        f"{server}/drip": "cannot be read: takes longer than 0.3 s",
        f"{server}/silent": "cannot be read: timed out",
        "http://127.0.0.1:1/x.jpg": "cannot be read: ",
        "http://[/x.jpg": "cannot be read: ",
        "http://": "cannot be read: ",
    }.items():
        pixels, reason = decode_image(url, None, SIZE)
        assert pixels is None and reason.startswith(word), reason


def test_other_schemes(monkeypatch):
    content = encoded(PHOTO, "PNG")
    monkeypatch.setattr(images, "open_file", lambda path: io.BytesIO(content))
    assert_shows(decode_image("s3://bucket/a.png", None, SIZE), PHOTO)

    def missing(path):
        raise InputError(f"{path}: install the extra")

    monkeypatch.setattr(images, "open_file", missing)
    reason = decode_image("hdfs://host/a.png", None, SIZE)[1]
    assert reason == "cannot be read: hdfs://host/a.png: install the extra"


def test_decoding_goes_ahead_of_the_caller_but_not_far(monkeypatch):
    lock, started, reached = threading.Lock(), [], threading.Event()

    def decode_one(image, *_):
        with lock:
            started.append(image)
            if len(started) == 9:
                reached.set()
        return image, None

    monkeypatch.setattr(images, "decode_image", decode_one)
    names = [f"{number}.jpg" for number in range(50)]
    results = decode_images(names, "", SIZE, ahead=8)
    assert next(results) == ("0.jpg", None)
    # Without being asked for, eight more are decoded, and no ninth.
    assert reached.wait(10)
    for number, result in enumerate(results, start=1):
        assert result == (f"{number}.jpg", None)
        assert len(started) <= number + 9
    assert sorted(started) == sorted(names)
