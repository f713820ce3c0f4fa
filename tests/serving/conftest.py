"""Exports, and requests of many candidates, made once."""

import pytest
import tensorflow as tf

from hccm_tf.models import MODELS
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.serving.request import Impressions
from tests.serving.asking import ROWS


@pytest.fixture(scope="session")
def versions(once, fitted):
    """Model's name → folder of its export's first version."""

    def make(folder):
        return {name: fitted[name].export(folder / name) for name in fitted}

    return once("saved_models", make)


@pytest.fixture(scope="module", params=["din", "hccm"])
def served(request, shop, fitted, versions):
    """`(estimator, name → signature, impressions, whether it has images)`."""
    estimator = fitted[request.param]
    signatures = tf.saved_model.load(str(versions[request.param])).signatures
    impressions = Impressions(shop.data, "test", ROWS)
    return estimator, signatures, impressions, MODELS[request.param].has_images


@pytest.fixture(scope="session")
def requests_of_many(once, shop):
    """The shop's data folder, where the splits of a user's log are cut into requests.

    They have 1 to 7 candidates; the hour, which is the user's, is the first one's.
    """
    log = shop.impressions.sort_values(["user_id", "timestamp"], kind="stable")
    together = log.groupby(["user_id", "split"])
    place, number = together.cumcount(), together.ngroup() * 1000
    # Of 1, 7 and 6 candidates, then again.
    number += place // 14 * 3 + (place % 14 > 0) + (place % 14 > 7)
    log = log.assign(request_id=number)
    log["hour"] = log.groupby("request_id").hour.transform("first")

    def make(folder):
        path = folder / "data"
        build_examples(shop.items, log.sort_index(), path, schema=shop.schema)
        return path

    return once("requests_of_many", make)
