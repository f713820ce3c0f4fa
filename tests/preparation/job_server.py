"""Beam's own job server, which the tests' pipelines are sent to, on 127.0.0.1 only.

    python -m tests.preparation.job_server --port_file=FILE

By itself it listens on all interfaces, and so does what runs its pipelines.
"""

import contextlib
import sys
import time
from unittest import mock

import grpc

from tests.processes import Script

_make_server = grpc.server


def _local_server(*args, **kwargs):
    server = _make_server(*args, **kwargs)
    listen = server.add_insecure_port
    server.add_insecure_port = lambda to: listen(to.replace("[::]", "127.0.0.1"))
    return server


def on_this_machine_only():
    """In its block Beam's servers listen on 127.0.0.1 instead of all interfaces."""
    return mock.patch("grpc.server", _local_server)


@contextlib.contextmanager
def job_server(folder):
    """Runs one whose files are in a folder while its block runs; yields its address."""
    port, staging = folder / "port", folder / "staging"
    flags = f"--port_file={port}", f"--staging_dir={staging}"
    server = Script(["-m", "tests.preparation.job_server", *flags])
    try:
        while not port.exists():
            assert server.poll() is None, server.communicate()
            time.sleep(0.05)
        # Beam leaves files there.
        with on_this_machine_only(), mock.patch("tempfile.tempdir", str(folder)):
            yield f"localhost:{port.read_text()}"
    finally:
        server.kill()
        server.communicate()


if __name__ == "__main__":
    # Not for the tests themselves, as it takes a while.
    from apache_beam.runners.portability.local_job_service_main import run

    with on_this_machine_only():
        run(sys.argv[1:])
