import resource
import types

import keras
import numpy as np
import pytest

from hccm_tf.errors import InputError
from hccm_tf.run_folder import RunFolder
from hccm_tf.training import loop
from hccm_tf.training.checkpoints import restore_checkpoint, save_checkpoint


def _model(seed, units=3):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(units)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def _trained(seed, steps=3):
    model = _model(seed)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        model.train_on_batch(rng.normal(size=(8, 4)), rng.normal(size=(8, 1)))
    return model


def _values(model):
    variables = model.variables + model.metrics_variables + model.optimizer.variables
    return [np.array(variable) for variable in variables]


def _assert_equal(one, other):
    for a, b in zip(_values(one), _values(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_holds_all_that_the_next_step_depends_on(tmp_path):
    model, other = _trained(0), _trained(1, steps=1)
    best = [np.array(weight) + 1 for weight in model.get_weights()]
    save_checkpoint(tmp_path, model, {"epoch": 4, "auc": 0.1 + 0.2}, best)
    state, restored = restore_checkpoint(tmp_path, other)
    assert state == {"epoch": 4, "auc": 0.1 + 0.2}
    for a, b in zip(best, restored, strict=True):
        np.testing.assert_array_equal(a, b)
    _assert_equal(model, other)
    # Dropout's random state and the loss so far, too: they go on alike.
    batch = np.ones((8, 4)), np.zeros((8, 1))
    assert model.train_on_batch(*batch) == other.train_on_batch(*batch)
    _assert_equal(model, other)


def test_the_two_newest_are_kept(tmp_path):
    model = _trained(0)
    assert restore_checkpoint(tmp_path, model) is None
    for epoch in range(4):
        save_checkpoint(tmp_path, model, {"epoch": epoch})
    assert len(list(tmp_path.iterdir())) == 2
    assert restore_checkpoint(tmp_path, model) == ({"epoch": 3}, None)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("name", ["arrays.npz", "state.json"])
def test_of_a_truncated_checkpoint_the_one_before_it_is_used(tmp_path, name, share):
    old, new = _trained(0), _trained(1)
    save_checkpoint(tmp_path, old, {"epoch": 0})
    save_checkpoint(tmp_path, new, {"epoch": 1})
    file = max(tmp_path.iterdir()) / name
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    other = _model(2)
    with pytest.warns(UserWarning, match="damaged checkpoint"):
        state, _ = restore_checkpoint(tmp_path, other)
    assert state == {"epoch": 0}
    _assert_equal(old, other)
    # It is still the one before the next.
    save_checkpoint(tmp_path, new, {"epoch": 1})
    (max(tmp_path.iterdir()) / name).write_bytes(content[: int(share * len(content))])
    with pytest.warns(UserWarning, match="damaged checkpoint"):
        assert restore_checkpoint(tmp_path, other)[0] == {"epoch": 0}


@pytest.mark.parametrize("text", ["[]", "5", "[" * 100_000])
def test_a_state_that_is_none_is_a_damage(tmp_path, text):
    save_checkpoint(tmp_path, _trained(0, steps=1), {})
    (tmp_path / "00000001" / "state.json").write_text(text)
    # No checkpoint, whatever its digits look like.
    (tmp_path / "0000000²").mkdir()
    with (
        pytest.warns(UserWarning, match="damaged checkpoint"),
        pytest.raises(InputError, match="all checkpoints are damaged"),
    ):
        restore_checkpoint(tmp_path, _model(2))


@pytest.mark.parametrize("state", [{}, {"progress": []}, {"progress": {"epoc": 1}}])
def test_a_state_that_does_not_say_where_the_run_was(tmp_path, monkeypatch, state):
    monkeypatch.setattr(loop, "restore_checkpoint", lambda *_: (state, None))
    with pytest.raises(InputError, match="checkpoints: .* to go on from the one"):
        trainer = types.SimpleNamespace(model=None, losses=np.zeros(2))
        loop._restore(trainer, types.SimpleNamespace(), RunFolder(tmp_path), True)


def test_a_changed_byte_is_found(tmp_path):
    save_checkpoint(tmp_path, _trained(0), {})
    (file,) = tmp_path.glob("*/arrays.npz")
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    with (
        pytest.warns(UserWarning, match="damaged checkpoint"),
        pytest.raises(InputError, match="all checkpoints are damaged"),
    ):
        restore_checkpoint(tmp_path, _model(2))


def test_when_the_disk_is_full_the_older_one_stays(tmp_path):
    model = _trained(0)
    save_checkpoint(tmp_path, model, {"epoch": 0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save_checkpoint(tmp_path, _trained(1), {"epoch": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(list(tmp_path.iterdir())) == 1
    other = _model(2)
    assert restore_checkpoint(tmp_path, other)[0] == {"epoch": 0}
    _assert_equal(model, other)


def test_a_checkpoint_of_another_model_is_an_error(tmp_path):
    save_checkpoint(tmp_path, _trained(0), {})
    with pytest.raises(InputError, match="another model or strategy"):
        restore_checkpoint(tmp_path, _model(0, units=5))
