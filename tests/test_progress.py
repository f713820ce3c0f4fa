"""What is said of long work, on a terminal and elsewhere."""

import io

import pytest

from hccm_tf import progress
from hccm_tf.preparation.steps import Step, run_steps
from hccm_tf.progress import advance, listening


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def said(monkeypatch):
    """Function of a stderr: what is said of 3 × 500 of 2000 rows."""
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)

    def say(stderr):
        monkeypatch.setattr("sys.stderr", stderr)
        with progress.progress("reading", 2000, "row"):
            for _ in range(3):
                advance(500)
        return stderr.getvalue()

    return say


def test_lines_where_there_is_no_terminal(said):
    lines = said(io.StringIO()).splitlines()
    starts = [line.partition(", ")[0] for line in lines]
    assert list(dict.fromkeys(starts)) == [
        f"reading: {count} of 2.00k rows" for count in ("0.00", "500", "1.00k", "1.50k")
    ]
    assert all(line.endswith(" left") and "row/s" in line for line in lines)


def test_a_bar_on_a_terminal(said):
    states = said(Terminal()).split("\r")
    assert "75%" in states[-1] and "1.50k/2.00k" in states[-1]
    assert all(state.count("\n") == 0 for state in states[:-1])


@pytest.mark.parametrize("stderr", [io.StringIO, Terminal])
def test_short_work_says_nothing(said, monkeypatch, stderr):
    monkeypatch.setattr(progress, "DELAY", 60)
    monkeypatch.setattr(progress, "LINE_SECONDS", 60)
    assert said(stderr()) == ""


def test_the_innermost_work_is_told():
    advance(1)
    outer, inner = [], []
    with listening(outer.append):
        advance(2)
        with listening(inner.append):
            advance(3)
        advance(4)
    advance(5)
    assert (outer, inner) == ([2, 4], [3])


@pytest.mark.parametrize("processes", [1, 2])
def test_workers_tell_how_much_is_done(tmp_path, processes):
    told = []
    with listening(told.append):
        run_steps([Step(advance, 5), Step(advance, 3)], tmp_path, processes=processes)
    assert sorted(told[:5]) == [0, 1, 2, 3, 4] and sorted(told[5:]) == [0, 1, 2]
