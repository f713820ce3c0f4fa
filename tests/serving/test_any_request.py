"""Requests of ids and values of all kinds."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.asking import ask

INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 40)
STRINGS = st.binary(max_size=40) | st.sampled_from([b"", b"0001.jpg", b"\xff" * 10**6])
FLOATS = st.floats(width=32)


@st.composite
def _requests(draw, spec):
    rows, candidates, width = (draw(st.integers(0, 3)) for _ in range(3))
    request = {}
    for name, value in spec.items():
        second = candidates if name in _candidates_of(spec) else width
        shape = (rows, second)[: value.shape.rank]
        count = int(np.prod(shape))
        kind = {tf.int64: INTEGERS, tf.string: STRINGS, tf.float32: FLOATS}.get(
            value.dtype, st.booleans()
        )
        values = draw(st.lists(kind, min_size=count, max_size=count))
        dtype = object if value.dtype == tf.string else value.dtype.as_numpy_dtype
        array = np.empty(count, dtype)
        array[:] = values
        request[name] = array.reshape(shape)
    return request


def _candidates_of(spec):
    """The inputs `[R, N]` of `rank`."""
    if "candidate_mask" not in spec:
        return set()
    histories = {name for name in spec if name.startswith("history_")}
    return {name for name, v in spec.items() if v.shape.rank == 2} - histories


@pytest.mark.parametrize("name", ["serving_default", "rank", "explain"])
def test_any_request_has_a_finite_answer_or_a_named_error(served, name):
    """2 models x 3 signatures x 350 requests, of ids and values of all kinds."""
    signature = served[1][name]
    spec = signature.structured_input_signature[1]

    @settings(
        max_examples=350,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(request=_requests(spec))
    def answer(request):
        lengths, width = request["history_length"], request["history_item_id"].shape[1]
        if ((lengths < 0) | (lengths > width)).any():
            with pytest.raises(tf.errors.InvalidArgumentError, match="history_length"):
                ask(signature, request)
            lengths %= width + 1
        for key, answer in ask(signature, request).items():
            assert np.isfinite(answer).all(), key
            if key == "ctr":
                assert ((answer >= 0) & (answer <= 1)).all()

    answer()
