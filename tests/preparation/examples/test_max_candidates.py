import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hccm_tf.preparation.examples.job import write_json
from hccm_tf.preparation.examples.max_candidates import (
    cheapest_cut,
    choose,
    max_candidates,
)

SIZES = st.dictionaries(st.integers(1, 60), st.integers(1, 30), min_size=1, max_size=8)


def _brute_force(counts):
    def cost(most):
        return sum(-(-n // most) * (4 + most) * count for n, count in counts.items())

    return min(range(1, max(counts) + 1), key=cost)


@given(SIZES)
def test_equals_brute_force(counts):
    assert cheapest_cut(counts) == _brute_force(counts)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [({1: 5}, 1), ({10: 3}, 10), ({10: 1_000, 200: 1}, 10), ({1: 100, 2: 1}, 1)],
)
def test_of_some_logs(counts, expected):
    assert cheapest_cut(counts) == expected == _brute_force(counts)


def test_one_very_long_request():
    assert cheapest_cut({3_000_000: 1}) == 3_000_000
    most = cheapest_cut({3_000_000: 1, 4: 10_000_000})
    assert most == 4


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([{"train": [[2, 4]], "test": [[9, 50]]}, {}, {"train": [[2, 1], [1, 1]]}], 2),
        ([{"train": [], "test": [[9, 50]]}, {"validation": [[9, 1]]}], 9),
        ([{}], 1),
    ],
)
def test_the_training_split_chooses(tmp_path, found, expected):
    job = types.SimpleNamespace(work=tmp_path)
    (tmp_path / "requests").mkdir()
    for number, counts in enumerate(found):
        write_json(tmp_path / "requests" / f"{number:05d}.json", counts)
    choose(job, 0)
    assert max_candidates(job) == expected
