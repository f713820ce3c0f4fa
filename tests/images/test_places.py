"""Which places a catalogue may name: below a folder, or at a public URL."""

import io
import os
import pathlib

import pytest
from PIL import Image

from hccm_tf.errors import InputError
from hccm_tf.images import addresses, download, places
from hccm_tf.images.read import decode_image

SIZE = 4


@pytest.fixture
def folder(tmp_path):
    """`photos` with an image and a folder, beside a file that is nobody's business."""
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    picture = Image.new("RGB", (9, 9), (10, 200, 30))
    for path in (photos / "a.png", photos / "sub" / "b.png", tmp_path / "secret.png"):
        picture.save(path)
    (photos / "inside.png").symlink_to("sub/b.png")
    (photos / "out.png").symlink_to("../secret.png")
    (photos / "up").symlink_to(tmp_path)
    return photos


def _reason(image, folder, **allowed):
    pixels, reason = decode_image(image, folder, SIZE, **allowed)
    assert (pixels is None) == (reason is not None)
    return reason


def test_names_below_the_folder(folder):
    for name in ("a.png", "sub/b.png", "./sub/../a.png", "inside.png"):
        assert _reason(name, folder) is None
    # An absolute path below the folder is one, too.
    assert _reason(str(folder / "a.png"), folder) is None
    assert _reason("etc/../a.png", folder) is None


def test_names_that_lead_out(folder):
    out = ["../secret.png", str(folder.parent / "secret.png"), "sub/../../secret.png"]
    for name in (*out, "../photos-2/a.png", "/etc/passwd"):
        for allowed in ({}, {"allow_links": True}):
            assert _reason(name, folder, **allowed) == (
                "cannot be read: it leads out of image_dir"
            )


def test_links_that_lead_out(folder):
    for name in ("out.png", "up/secret.png"):
        reason = _reason(name, folder)
        assert reason.startswith("cannot be read: it is a link out of image_dir")
        assert "allow_links" in reason
        assert _reason(name, folder, allow_links=True) is None
    # The folder itself may be a link.
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert _reason("a.png", link) is None and _reason("inside.png", link) is None
    assert _reason("up/photos/a.png", link) is None


def test_urls_of_files_are_refused(folder):
    url = (folder / "a.png").as_uri()
    for name in (url, url.upper(), "file:" + str(folder / "a.png"), "FILE:a.png"):
        reason = _reason(name, folder, allow_links=True, allow_private_urls=True)
        assert reason.startswith("cannot be read: file: is refused")


def test_only_files_are_read_and_up_to_a_limit(folder, monkeypatch):
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    # Of nothing, which takes no room on the disk.
    with open(folder / "large.jpg", "wb") as file:
        file.write(b"\xff\xd8")
        file.truncate(2**40)
    for name, reason in {
        "pipe.jpg": "cannot be read: it is no file",
        "zero.jpg": "cannot be read: it is no file",
        "sub": "cannot be read: it is a folder",
        "large.jpg": f"cannot be read: {2**40} bytes are more than {places.MAX_BYTES}",
    }.items():
        assert _reason(name, folder, allow_links=True) == reason
    size = (folder / "a.png").stat().st_size
    monkeypatch.setattr(places, "MAX_BYTES", size)
    assert _reason("a.png", folder) is None
    monkeypatch.setattr(places, "MAX_BYTES", size - 1)
    assert f"{size} bytes are more than" in _reason("a.png", folder)


def _remote(monkeypatch):
    asked, content = [], io.BytesIO()
    Image.new("RGB", (9, 9)).save(content, "PNG")

    def open_file(path, limit):
        asked.append(path)
        assert limit == download.MAX_BYTES
        return io.BytesIO(content.getvalue())

    monkeypatch.setattr(places, "open_file", open_file)
    return asked


def test_other_schemes(monkeypatch):
    asked = _remote(monkeypatch)
    assert _reason("s3://bucket/a.png", None) is None
    # A scheme whose names are hosts.
    for url in ("hdfs://10.0.0.1/a.png", "ram://a.png"):
        assert "allow_private_urls" in _reason(url, None)
        assert _reason(url, None, allow_private_urls=True) is None
    assert asked == ["s3://bucket/a.png", "hdfs://10.0.0.1/a.png", "ram://a.png"]

    def missing(path, limit):
        raise InputError(f"{path}: install the extra")

    monkeypatch.setattr(places, "open_file", missing)
    reason = _reason("s3://bucket/a.png", None)
    assert reason == "cannot be read: s3://bucket/a.png: install the extra"


def test_a_remote_folder(monkeypatch):
    asked = _remote(monkeypatch)
    for name in ("a.png", "x/../b.png", "/c.png", "..d.png"):
        assert _reason(name, "s3://bucket/photos") is None
    for name in ("../e.png", "x/../../e.png", "/../e.png"):
        reason = _reason(name, "s3://bucket/photos")
        assert reason == "cannot be read: it leads out of image_dir"
    names = [path.removeprefix("s3://bucket/photos/") for path in asked]
    assert names == ["a.png", "b.png", "c.png", "..d.png"]


PUBLIC = ("93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "64:ff9b::5db8:d822")
INTERNAL = (
    *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255"),
    *("192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1%eth0"),
    *("fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1"),
    *("::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1"),
)


@pytest.mark.parametrize("address", [*PUBLIC, *INTERNAL])
def test_public_addresses(address):
    assert addresses.is_public(address) == (address in PUBLIC)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_urls_of_this_machine_are_not_asked(host):
    reason = _reason(f"http://{host}:1/a.png", None)
    assert "not public; allow_private_urls" in reason


def test_what_a_budget_lets_through():
    budget = places.Budget(10)
    with budget.hold(4), budget.hold(6):
        pass
    with budget.hold(99):  # alone
        pass
    with pytest.raises(ZeroDivisionError), budget.hold(10):
        raise ZeroDivisionError
    with budget.hold(10):
        pass


def test_nothing_else_opens_what_a_catalogue_names():
    """Pixels come from `image_content` alone, whose rules hold everywhere."""
    root = pathlib.Path(places.__file__).parents[1]
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if "decode_image(" in (text := path.read_text()) or "Image.open" in text
    }
    assert found == {"images/read.py", "images/decode.py"}
