"""Downloads from servers that misbehave, on this machine."""

import io
import socket
import socketserver
import threading

import numpy as np
import pytest
from PIL import Image

from hccm_tf.images import addresses, download
from hccm_tf.images.read import decode_image

SIZE = 8
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SECRET = b"SSH-2.0-internal"


def _png():
    content = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 10, 60)).save(content, "PNG")
    return content.getvalue()


PNG = _png()
WHOLE = OK + b"Content-Length: %d\r\n\r\n" % len(PNG) + PNG
# Path → what is sent, and then again and again until the client is gone.
ANSWERS = {
    "/photo%20%C3%A4.png?w=1&h=2": (WHOLE, b""),
    "/moved": (b"HTTP/1.1 301 x\r\nLocation: /photo%20%C3%A4.png?w=1&h=2\r\n\r\n", b""),
    "/m%C3%B6ved": (
        b"HTTP/1.1 308 x\r\nLocation: /photo \xc3\xa4.png?w=1&h=2\r\n\r\n",
        b"",
    ),
    "/chunked": (CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(PNG), PNG), b""),
    "/cut": (WHOLE[:-20], b""),
    "/cut-chunk": (CHUNKED + b"ffff\r\n\x89PNG", b""),
    "/teapot": (b"HTTP/1.1 418 " + SECRET + b"\r\n\r\n" + SECRET, b""),
    "/nonsense": (SECRET + b"\r\n", b""),
    "/to-file": (b"HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\n\r\n", b""),
    "/round": (b"HTTP/1.1 302 x\r\nLocation: /round\r\n\r\n", b""),
    "/to-internal": (b"HTTP/1.1 302 x\r\nLocation: http://internal/\r\n\r\n", b""),
    "/endless": (OK + b"\r\n", b"\xff" * 1000),
    "/drip": (OK + b"\r\n", b"\xff"),
    "/drip-status": (b"HTTP/1.1 200 ", b"x"),
    "/drip-header": (OK + b"X: ", b"x"),
    "/drip-chunk-size": (CHUNKED + b"1\r\nx\r\n", b"0"),
    "/drip-trailer": (CHUNKED + b"1\r\nx\r\n0\r\n", b"A: b\r\n"),
    "/silent": (b"", b""),
}


@pytest.fixture(scope="module")
def port():
    """Port of a server; tests that ended do not keep it busy."""
    end = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            path = self.request.recv(2**16).split(b" ")[1].decode()
            first, again = ANSWERS.get(path, (b"HTTP/1.1 404 x\r\n\r\n", b""))
            self.request.sendall(first)
            while again and not end.wait(0 if path == "/endless" else 0.02):
                self.request.sendall(again)
            if path == "/silent":
                self.request.recv(1)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running.server_address[1]
        end.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def looked_up(monkeypatch):
    """Names that were looked up. `internal` is no public address, all others are."""
    asked = []

    def look_up(host, port):
        asked.append(host)
        address = "127.0.0.2" if host == "internal" else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(addresses, "look_up", look_up)
    monkeypatch.setattr(addresses, "is_public", lambda address: address[-1] == "1")
    return asked


def _reason(url, **allowed):
    pixels, reason = decode_image(url, None, SIZE, **allowed)
    assert (pixels is None) == (reason is not None)
    return reason


def test_images(port, looked_up):
    for path in (
        *("photo ä.png?w=1&h=2", "photo%20%C3%A4.png?w=1&h=2#top", "moved", "möved"),
        "chunked",
    ):
        for scheme in ("http", "HTTP"):
            url = f"{scheme}://photos.example:{port}/{path}"
            pixels, reason = decode_image(url, None, SIZE)
            assert reason is None
            np.testing.assert_array_equal(pixels[0, 0], [200, 10, 60])


def test_a_name_is_looked_up_once_and_connected_to(port, looked_up):
    assert _reason(f"http://photos.example:{port}/chunked") is None
    assert looked_up == ["photos.example"]


def test_no_internal_host_is_asked(port, looked_up):
    refused = "cannot be read: its host has an address that is not public"
    assert _reason("http://internal/").startswith(refused)
    assert _reason(f"http://photos.example:{port}/to-internal").startswith(refused)
    # Where it is allowed, it is asked: there is nobody.
    url = f"http://photos.example:{port}/to-internal"
    reason = _reason(url, allow_private_urls=True)
    assert reason.startswith("cannot be read: ") and "public" not in reason


def test_hosts_with_an_internal_address_among_others(port, looked_up, monkeypatch):
    look_up = addresses.look_up
    found = [*look_up("photos.example", port), *look_up("internal", port)]
    for answer in (found, found[::-1]):
        monkeypatch.setattr(addresses, "look_up", lambda *_, answer=answer: answer)
        assert "not public" in _reason(f"http://photos.example:{port}/chunked")
    # Where the first does not answer, the next is asked.
    monkeypatch.setattr(addresses, "look_up", lambda *_: found[::-1])
    url = f"http://photos.example:{port}/chunked"
    assert _reason(url, allow_private_urls=True) is None


def test_what_a_server_says_is_not_quoted(port, looked_up):
    for path, word in {
        "none.png": "HTTP status 404",
        "teapot": "HTTP status 418",
        "nonsense": "its answer is no HTTP, or ends early",
        "cut-chunk": "its answer is no HTTP, or ends early",
        "to-file": "it is, or redirects to, no http:// or https:// URL",
        "round": "more than 5 redirects",
        "cut": "it ends 20 bytes early",
    }.items():
        reason = _reason(f"http://photos.example:{port}/{path}")
        assert reason == f"cannot be read: {word}"


def test_urls_that_are_none(looked_up):
    for url in ("http://", "http://[/x.jpg", "http://a:x/b", "http://a:99999999/b"):
        assert _reason(url).startswith("cannot be read: ")


def test_no_more_than_the_limit_is_read(port, looked_up, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 100_000)
    reason = _reason(f"http://photos.example:{port}/endless")
    assert reason == "cannot be read: more than 100000 bytes"


@pytest.mark.parametrize("path", [*filter(lambda p: "drip" in p, ANSWERS), "/silent"])
def test_one_deadline_for_all(port, looked_up, monkeypatch, path):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    reason = _reason(f"http://photos.example:{port}{path}")
    assert reason == "cannot be read: takes longer than 0.2 s"


def test_the_deadline_holds_for_redirects_and_look_ups(port, looked_up, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(download, "MAX_REDIRECTS", 10**9)
    never = threading.Event()
    reason = _reason(f"http://photos.example:{port}/round")
    assert reason == "cannot be read: takes longer than 0.2 s"
    monkeypatch.setattr(addresses, "look_up", lambda *_: never.wait())
    reason = _reason("http://photos.example/x.png")
    assert reason == "cannot be read: takes longer than 0.2 s"
    never.set()


def test_tls_is_waited_for_no_longer(port, looked_up, monkeypatch):
    """A server that never ends its part of the handshake."""
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://photos.example:{server.getsockname()[1]}/x.png"
        assert _reason(url) == "cannot be read: takes longer than 0.2 s"
