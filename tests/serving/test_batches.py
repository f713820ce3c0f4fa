import numpy as np
import pytest

from hccm_tf.serving.batches import in_batches


@pytest.mark.parametrize(
    ("batch_size", "expected"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (9, [7])]
)
def test_no_call_has_more_rows(batch_size, expected):
    sizes, rows = [], np.arange(7)

    def ask(inputs):
        sizes.append(len(inputs["x"]))
        return {"y": 2 * inputs["x"]}

    np.testing.assert_array_equal(
        in_batches(ask, {"x": rows}, batch_size)["y"], 2 * rows
    )
    assert sizes == expected
