"""Who writes to a folder, and what a full disk leaves."""

import errno
import fcntl
import os

import pytest

from hccm_tf import atomic
from hccm_tf.atomic import new_file, new_folder, only_writer
from hccm_tf.errors import InputError


def _is_free(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_one_writer_at_a_time(tmp_path):
    folder = tmp_path / "versions"
    with only_writer(folder):
        assert not _is_free(folder)
    assert _is_free(folder)
    with pytest.raises(KeyError), only_writer(folder):
        raise KeyError
    assert _is_free(folder)


def test_a_folder_that_is_there_is_not_replaced(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(InputError, match="exists already"), new_folder(tmp_path / "1"):
        pass


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, monkeypatch, make):
    # As if less than this were left.
    monkeypatch.setattr(atomic, "DISK_IS_FULL", 1 << 62)
    (tmp_path / "older").write_text("whole")
    with (
        pytest.raises(InputError, match=f"{tmp_path}: the disk is full"),
        make(tmp_path / "newer") as path,
    ):
        path.write_text("a part") if make is new_file else (path / "x").touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["older"]
