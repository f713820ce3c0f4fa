import warnings

import keras
import pytest

from hccm_tf.errors import InputError
from hccm_tf.models.backbones import load_backbone

OTHERS = {
    "another": ("MobileNetV3Large", {}),
    "narrower": ("MobileNetV3Small", {"alpha": 0.75}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_weights_of_another_cnn(tmp_path, other):
    name, options = OTHERS[other]
    path = tmp_path / "other.weights.h5"
    make = getattr(keras.applications, name)
    make(
        input_shape=(32, 32, 3), include_top=False, weights=None, **options
    ).save_weights(path)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(InputError) as error:
            load_backbone("MobileNetV3Small", str(path), 32)
    assert not [w for w in warned if w.category is UserWarning]
    message = str(error.value)
    assert message.startswith(f"weights={path} could not be loaded into MobileNetV3Sm")
    assert "objects could not be loaded" in message
    assert "\n" not in message and len(message) < len(str(path)) + 350
