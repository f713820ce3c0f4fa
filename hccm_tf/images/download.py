"""Downloads a file within one deadline, whatever the server does with the time."""

import contextlib
import functools
import http.client
import socket
import ssl
import string
import threading
import time
import urllib.parse

from hccm_tf.images.addresses import connect
from hccm_tf.version import __version__

MAX_BYTES = 2**26
TIMEOUT = 30.0  # seconds, from the look-up of the name to the last byte
MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
SCHEMES = ("http", "https")


def download(url, allow_private=False):
    """The content of a URL, bytes.

    Args:
        url: `http://` or `https://`; letters that a URL must not have are quoted.
        allow_private: see `hccm_tf.images.addresses.connect`.

    Raises:
        ValueError: if the URL, or what it redirects to, is not one to ask, or there is
            more than `MAX_BYTES`.
        OSError: if there is no answer, or another one than 200. What the server says
            does not stand in the error.
    """
    end = time.monotonic() + TIMEOUT
    try:
        content = _follow(url, end, allow_private)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, TimeoutError) or time.monotonic() >= end:
            raise TimeoutError(f"takes longer than {TIMEOUT} s") from error
        if isinstance(error, http.client.HTTPException):
            raise OSError("its answer is no HTTP, or ends early") from error
        raise
    # A connection that is shut down looks like the end of a file.
    if time.monotonic() >= end:
        raise TimeoutError(f"takes longer than {TIMEOUT} s")
    return content


def _follow(url, end, allow_private):
    for _ in range(MAX_REDIRECTS + 1):
        content, url = _get(url, end, allow_private)
        if url is None:
            return content
    raise ValueError(f"more than {MAX_REDIRECTS} redirects")


def _get(url, end, allow_private):
    """`(content, None)`, or `(None, url)` of a redirect."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise ValueError("it is, or redirects to, no http:// or https:// URL")
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    port = parts.port or kind.default_port
    raw = connect(parts.hostname, port, end, allow_private)
    with contextlib.closing(raw), _shut_down_at(end, raw):
        options = {"context": _tls()} if secure else {}
        connection = kind(parts.hostname, port, **options)
        connection.sock = raw
        if secure:
            connection.sock = _tls().wrap_socket(raw, server_hostname=parts.hostname)
        with contextlib.closing(connection):
            return _ask(connection, url, parts)


def _ask(connection, url, parts):
    # Catalogues hold spaces and letters that a URL must not.
    target = urllib.parse.quote(parts.path or "/", safe="%/:=&~+!$,;'@()*[]")
    if parts.query:
        target += "?" + urllib.parse.quote(parts.query, safe="%/:=&?~+!$,;'@()*[]")
    headers = {"User-Agent": f"hccm_tf/{__version__}", "Connection": "close"}
    connection.request("GET", target, headers=headers)
    with connection.getresponse() as response:
        location = response.headers.get("Location")
        if response.status in REDIRECTS and location:
            # Headers come as if they were Latin-1, whatever they are.
            location = urllib.parse.quote(location, string.punctuation, "latin-1")
            return None, urllib.parse.urljoin(url, location)
        if response.status != 200:
            raise OSError(f"HTTP status {response.status}")
        content, rest = response.read(MAX_BYTES + 1), response.length
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    if rest:
        raise OSError(f"it ends {rest} bytes early")
    return content, None


@functools.cache
def _tls():
    return ssl.create_default_context()


@contextlib.contextmanager
def _shut_down_at(end, connection):
    """Ends what waits for a connection at a time.

    Timeouts of a socket begin anew with each byte that comes.
    """
    # TLS takes the socket itself away.
    same = connection.dup()

    def shut_down():
        with contextlib.suppress(OSError):
            same.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(end - time.monotonic(), 0), shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        same.close()
