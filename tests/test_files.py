import functools
import http.server
import sys
import threading

import numpy as np
import pytest

from hccm_tf.data.dataset import Batches
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.files import open_file, require_scheme
from hccm_tf.preparation.tables import read_table


class _RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves parts of files, which tensorflow-io asks for."""

    def do_GET(self):
        try:
            with open(self.translate_path(self.path), "rb") as handle:
                content = handle.read()
        except OSError:
            self.send_error(404)
            return
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        first, _, last = asked.partition("-")
        begin, end = int(first or 0), min(int(last or len(content)), len(content) - 1)
        part = content[begin : end + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {begin}-{end}/{len(content)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def url(shop):
    handler = functools.partial(_RangeHandler, directory=shop.path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("function", "scheme"),
    [(open_file, "http"), (require_scheme, "http"), (require_scheme, "hdfs")],
)
def test_a_remote_path_without_the_extra_names_it(monkeypatch, function, scheme):
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    monkeypatch.setattr("tensorflow.io.gfile.get_registered_schemes", lambda: ["file"])
    with pytest.raises(InputError, match=rf"{scheme}://a/b.*hccm_tf\[io\]"):
        function(f"{scheme}://a/b")


def test_a_scheme_that_nobody_reads(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_io", object())
    with pytest.raises(InputError, match="no file system reads nonsense://"):
        open_file("nonsense://a/b")


def test_a_table_by_http(shop, url):
    pytest.importorskip("tensorflow_io")
    table = read_table(f"{url}/shop/items.csv", ["item_id", "image"])
    assert table["item_id"].to_pylist() == shop.items.item_id.tolist()
    with pytest.raises(InputError, match="nothing.csv"):
        read_table(f"{url}/shop/nothing.csv", ["item_id"])


def test_a_data_set_by_http(shop, url):
    pytest.importorskip("tensorflow_io")
    schema = Schema.load(f"{url}/data")
    assert schema.features == shop.schema.features
    folders = f"{url}/data", shop.data
    remote, local = (DataFolder(folder).catalogue() for folder in folders)
    assert remote.equals(local)
    remote, local = (Batches(path, schema, 100).dataset("test") for path in folders)
    for found, expected in zip(remote, local, strict=True):
        for name in expected[0]:
            np.testing.assert_array_equal(found[0][name], expected[0][name])
