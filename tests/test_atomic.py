"""Who writes to a folder, and what a full disk leaves."""

import errno
import fcntl
import os
import pathlib

import pytest

from hccm_tf import atomic
from hccm_tf.atomic import (
    check_can_make,
    new_file,
    new_folder,
    only_writer,
    remove_unfinished,
)
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


def test_a_disk_that_says_it_is_full_needs_no_other_sign(tmp_path):
    with pytest.raises(InputError, match="the disk is full"), new_file(tmp_path / "x"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.mark.parametrize("resume", [False, True])
def test_one_maker_of_a_folder(tmp_path, resume):
    path = tmp_path / "data"
    with new_folder(path, resume) as folder:
        (folder / "first").touch()
        with pytest.raises(InputError, match="data: another process writes it"):
            with new_folder(path, resume):
                pass
        assert (folder / "first").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "first"]


def test_only_what_a_killed_run_left_is_removed(tmp_path):
    """Whatever the name means to a shell or to a regular expression."""
    others = [
        "A1.incomplete-0123abcd",
        "A[12].incomplete-mine",
        "A[12].incomplete-0123abcde",
        "A[12]xincomplete-0123abcd",
    ]
    for name in (*others, "A[12].incomplete-0123abcd"):
        (tmp_path / name).mkdir()
    with new_folder(tmp_path / "A[12]"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*others, "A[12]"}


def test_what_killed_writers_left_is_removed(tmp_path):
    for name in ("model.keras.0123abcd.part", "model.keras.0123abcd.keras"):
        (tmp_path / name).touch()
    others = {"model.keras", "my.0123abcd.part", "model.keras.part"}
    for name in others:
        (tmp_path / name).touch()
    remove_unfinished(tmp_path / "model.keras")
    assert {path.name for path in tmp_path.iterdir()} == others


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch, make):
    events = []

    def note(name, function):
        def call(*arguments):
            target = arguments[0]
            if isinstance(target, int):
                target = os.readlink(f"/proc/self/fd/{target}")
            events.append((name, pathlib.Path(target).name.partition(".")[0]))
            return function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", note("flush", os.fsync))
    replace = note("name", pathlib.Path.replace)
    monkeypatch.setattr(pathlib.Path, "replace", replace)
    with make(tmp_path / "x") as path:
        if make is new_file:
            path.write_text("content")
        else:
            (path / "inner").mkdir()
            (path / "inner" / "file").write_text("content")
    named = events.index(("name", "x"))
    inside = {"x"} if make is new_file else {"x", "inner", "file"}
    assert {("flush", name) for name in inside} == set(events[:named])
    # And then the name.
    assert events[named + 1 :] == [("flush", tmp_path.name)]


@pytest.mark.parametrize(
    "name", ["file/data", "/proc/data", "x" * 250, "a\0b", "file/a/b"]
)
def test_what_cannot_be_written_is_found_first(tmp_path, name):
    (tmp_path / "file").touch()
    for make in (check_can_make, lambda path: new_folder(path).__enter__()):
        with pytest.raises(InputError, match="cannot be written") as caught:
            make(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_there_can_be_made_anew(tmp_path):
    (tmp_path / "file").write_text("old")
    check_can_make(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
