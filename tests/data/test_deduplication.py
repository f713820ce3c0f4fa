import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data.deduplication import deduplicate, padded_size


@pytest.mark.parametrize("seed", range(5))
def test_deduplicate_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    batch, length = rng.integers(1, 12, 2)
    shown = batch, rng.integers(1, 5)
    candidate_rows = rng.integers(0, 6, shown)
    history_rows = rng.integers(0, 6, (batch, length))
    candidate_category = rng.integers(1, 4, shown).astype(np.int32)
    # Padding has category 0, a click without image has its own.
    history_category = rng.integers(1, 4, (batch, length)).astype(np.int32)
    padding = rng.random((batch, length)) < 0.3
    history_rows[padding] = history_category[padding] = 0
    padding = rng.random(shown) < 0.3
    candidate_rows[padding] = candidate_category[padding] = 0
    rows, category, candidate_image, history_image = (
        tensor.numpy()
        for tensor in deduplicate(
            *map(tf.constant, (candidate_rows, candidate_category)),
            *map(tf.constant, (history_rows, history_category)),
        )
    )
    assert candidate_image.shape == shown and history_image.shape == (batch, length)
    sides = (
        (candidate_rows, candidate_category, candidate_image),
        (history_rows, history_category, history_image),
    )
    slots = [
        slot
        for side in sides
        for slot in zip(*(values.flat for values in side), strict=True)
    ]
    for row, kind, place in slots:
        if row == 0:
            assert place == 0
        else:
            assert (rows[place], category[place]) == (row, kind)
    assert (rows[0], category[0]) == (0, 0)
    expected = {(row, kind) for row, kind, _ in slots if row}
    real = [pair for pair in zip(rows, category, strict=True) if pair[0]]
    assert len(real) == len(set(real)) and set(real) == expected
    assert (category[rows == 0] == 0).all()
    assert len(rows) == padded_size(tf.constant(len(expected) + 1, tf.int64)).numpy()


def test_padded_size():
    counts = tf.data.Dataset.range(1, 4200)
    sizes = [int(size) for size in counts.map(padded_size).as_numpy_iterator()]
    for n, size in enumerate(sizes, start=1):
        assert n <= size <= 1.125 * n
    for power in range(5, 12):
        octave = {s for n, s in enumerate(sizes, 1) if 2**power < n <= 2 ** (power + 1)}
        assert len(octave) <= 8
