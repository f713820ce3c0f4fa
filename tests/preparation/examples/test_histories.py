import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from hccm_tf.preparation.examples.histories import point_in_time
from tests.reference import histories

INT64 = st.integers(-(2**63), 2**63 - 1)
# Few users and seconds, so that ties and long histories are common.
EVENT = st.tuples(
    st.sampled_from([-(2**63), -1, 0, 3, 2**63 - 1]),
    st.one_of(st.integers(-3, 6), INT64),
    st.integers(0, 1),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENT, max_size=40), st.integers(1, 6))
def test_equals_brute_force(events, max_history):
    log = pd.DataFrame(events, columns=["user_id", "timestamp", "label"], dtype="int64")
    clicks = np.flatnonzero(log.label == 1)
    users, times = log.user_id.to_numpy(), log.timestamp.to_numpy()
    order, begin, end = point_in_time(
        users[clicks], times[clicks], users, times, max_history
    )
    found = [
        clicks[order[first:last]].tolist()
        for first, last in zip(begin, end, strict=True)
    ]
    assert found == histories(log, max_history)


def test_a_click_of_the_same_second_is_not_history():
    users, times = np.array([1, 1, 1]), np.array([10, 10, 11])
    order, begin, end = point_in_time(users[:2], times[:2], users, times, 5)
    assert (end - begin).tolist() == [0, 0, 2]
    assert order[begin[2] : end[2]].tolist() == [0, 1]
