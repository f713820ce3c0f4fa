"""What many tests share, made once.

What it takes is imported when it is made: the layers' tests need Keras alone.
"""

import fcntl
import gc
import os
import pickle

import pytest

# As the commands have it, whose processes' results are compared with those of tests.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

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


# Python looks for garbage after so many new objects; a graph has thousands, which stay.
gc.set_threshold(20_000, 20, 50)


def pytest_collection_modifyitems(items):
    """Files of clusters first: at the end one of them would keep one core busy."""
    items.sort(key=lambda item: "training" not in item.path.parts)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Function of a name and a function, which is called by one worker of pytest-xdist.

    It is called with a folder, which nobody changes afterwards; all workers get its
    result from a pickle.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def call(name, make):
        file = root / f"{name}.pickle"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                folder = root / name
                folder.mkdir()
                file.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(file.read_bytes())

    return call


@pytest.fixture(scope="session")
def shop(once):
    """The tiny shop, see `make_shop`."""

    def make(folder):
        from tests.shop import make_shop

        return make_shop(folder)

    return once("shop", make)


@pytest.fixture(scope="session")
def weighted_shop(once):
    """The tiny shop with requests of 1 to 6 candidates, positions and weights."""

    def make(folder):
        from tests.shop import make_shop

        return make_shop(folder, request_size=6)

    return once("weighted_shop", make)


@pytest.fixture(scope="session")
def request_shop(once, shop):
    """The tiny shop that shows several items at a time, see `make_request_shop`."""

    def make(folder):
        from tests.shop import make_request_shop

        return make_request_shop(shop, folder)

    return once("request_shop", make)


@pytest.fixture(scope="session")
def fitted(once, shop):
    """`din` and `hccm` after one epoch on the shop."""

    def make(folder):
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

    return once("fitted", make)
