"""Exports made once."""

import pytest
import tensorflow as tf

from hccm_tf.models import MODELS
from hccm_tf.serving.request import Impressions
from tests.serving.asking import ROWS


@pytest.fixture(scope="session")
def versions(fitted, tmp_path_factory):
    """Model's name → folder of its export's first version."""
    folder = tmp_path_factory.mktemp("saved_models")
    return {name: fitted[name].export(folder / name) for name in ("din", "hccm")}


@pytest.fixture(scope="module", params=["din", "hccm"])
def served(request, shop, fitted, versions):
    """`(estimator, name → signature, impressions, whether it has images)`."""
    estimator = fitted[request.param]
    signatures = tf.saved_model.load(str(versions[request.param])).signatures
    impressions = Impressions(shop.data, "test", ROWS)
    return estimator, signatures, impressions, MODELS[request.param].has_images
