"""An HTTP connection whose timeout is for a whole answer, not for each of its bytes.

Otherwise a server that sends a byte now and then, of a header or a body, holds its
client for as long as it likes.
"""

import contextlib
import io
import socket
import time

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class _Socket:
    """A socket whose timeout is for all that comes until it is set again."""

    def __init__(self, plain):
        self._plain = plain
        self.settimeout(plain.gettimeout())

    def __getattr__(self, name):
        return getattr(self._plain, name)

    def settimeout(self, seconds):
        self._end = None if seconds is None else time.monotonic() + seconds
        self._plain.settimeout(seconds)

    def makefile(self, mode):
        return io.BufferedReader(_Reader(self, self._plain.makefile(mode, 0)))

    def wait_less(self):
        """Sets the plain socket's timeout to what is left."""
        if self._end is not None:
            left = self._end - time.monotonic()
            if left <= 0:
                raise TimeoutError("the time for the answer is over")
            self._plain.settimeout(left)


class _Reader(io.RawIOBase):
    """What comes from a `_Socket`."""

    def __init__(self, timed, file):
        self._timed, self._file = timed, file

    def readable(self):
        return True

    def readinto(self, buffer):
        self._timed.wait_less()
        return self._file.readinto(buffer)

    def close(self):
        self._file.close()
        super().close()


class _Timed:
    """Of a connection: the timeout to connect is for all of a host's addresses."""

    def connect(self):
        # What is wrong with the name is said by what follows.
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            self.timeout /= len(found)
        super().connect()
        self.sock = _Socket(self.sock)


class _Connection(_Timed, HTTPConnection):
    pass


class _SecureConnection(_Timed, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


POOLS = {"http": _Pool, "https": _SecurePool}


class DeadlineAdapter(HTTPAdapter):
    """Of `requests`: a request needs a timeout, which is kept for its whole answer.

    Only the look-up of a host's name takes as long as the system lets it.
    """

    def init_poolmanager(self, *args, **options):
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, *args, **options):
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = POOLS
        return manager
