"""What many tests share, made once.

What it takes is imported when it is made: the layers' tests need Keras alone.
"""

import pytest

MAX_HISTORY = 8
MAPS = {
    "backbone": "MobileNetV3Small",
    "weights": "random",
    "image_size": 33,
    "layer": "expanded_conv_2_add",
}
TINY = {
    "embedding_dim": 4,
    "hidden_units": (8,),
    "attention_hidden_units": (6,),
    "image_embedding_dim": 6,
    "cnn_filters": (5, 7),
}


def tiny(model, **options):
    """Those of `TINY` that a model reads, and further options."""
    from hccm_tf.configuration import readable
    from hccm_tf.models import find_model

    reads = readable(find_model(model))
    return {**{n: v for n, v in TINY.items() if n in reads}, **options}


def pytest_collection_modifyitems(items):
    """Files of clusters first: at the end one of them would keep one core busy."""
    items.sort(key=lambda item: "training" not in item.path.parts)


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """The tiny shop, see `make_shop`."""
    from tests.shop import make_shop

    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def fitted(shop):
    """`din` and `hccm` after one epoch on the shop."""
    from hccm_tf import CTREstimator

    return {
        model: CTREstimator(
            model,
            feature_maps=shop.maps,
            epochs=1,
            batch_size=128,
            learning_rate=1e-2,
            **tiny(model, **options),
        ).fit(shop.data)
        for model, options in (("din", {}), ("hccm", {"similarity": "cosine"}))
    }
