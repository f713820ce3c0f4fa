"""A tiny shop with everything that stands on its way to a model."""

import dataclasses
import pathlib

import numpy as np
import pandas as pd

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.schema import Schema
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.feature_maps.extract import extract_feature_maps
from tests.conftest import MAPS, MAX_HISTORY
from tests.preparation.request_logs import make_requests
from tests.reference import histories
from tfrecords_tools.demo.shop import make_demo


@dataclasses.dataclass(frozen=True)
class Shop:
    """Paths and tables; `log` has each impression's item columns and history."""

    path: pathlib.Path
    items: pd.DataFrame
    impressions: pd.DataFrame
    log: pd.DataFrame

    @property
    def data(self):
        return self.path / "data"

    @property
    def maps(self):
        return self.path / "maps"

    @property
    def images(self):
        return self.path / "shop" / "images"

    @property
    def schema(self):
        return Schema.load(self.data)

    @property
    def store(self):
        return FeatureMapStore.open(self.maps)


def make_shop(path, request_size=1):
    """60 items, 20 users, 1500 impressions, with awkward images.

    Of the items that are shown most, the first has no image, the second shares the
    image of the third, which is of another category, the fourth's file is missing and
    the fifth's is corrupt.

    With a larger request size some impressions are lost, so that requests have 1 to so
    many candidates, and each impression has a `position` and a `weight`.
    """
    make_demo(path / "shop", 60, 20, 1500, seed=0, request_size=request_size)
    items = pd.read_csv(path / "shop" / "items.csv")
    impressions = pd.read_csv(path / "shop" / "impressions.csv")
    if request_size > 1:
        impressions = _of_different_sizes(impressions)
        impressions.to_csv(path / "shop" / "impressions.csv", index=False)
    popular = impressions.item_id.value_counts().index
    place = [items.index[items.item_id == item][0] for item in popular]
    category = items.category[place[1]]
    third = next(row for row in place[2:] if items.category[row] != category)
    rest = [row for row in place[2:] if row != third]
    items.loc[place[0], "image"] = ""
    items.loc[place[1], "image"] = items.image[third]
    (path / "shop" / "images" / items.image[rest[0]]).unlink()
    (path / "shop" / "images" / items.image[rest[1]]).write_bytes(b"\xff\xd8no JPEG")
    items.to_csv(path / "shop" / "items.csv", index=False)
    names = [name for name in items.image.unique() if name]
    extract_feature_maps(names, path / "shop" / "images", path / "maps", **MAPS)
    build_examples(items, impressions, path / "data", max_history=MAX_HISTORY)
    log = impressions.merge(items, on="item_id", how="left", validate="many_to_one")
    log["history"] = histories(log, MAX_HISTORY)
    return Shop(path, items, impressions, log)


def make_request_shop(shop, path):
    """Requests of 1 to 5 candidates, whose rows are strewn over the log, with weights.

    Args:
        shop: `Shop` of the same items, whose feature maps it has.
        path: folder to write into.
    """
    items, log = make_requests()
    impressions = log.drop(columns="history").sample(
        frac=1, random_state=0, ignore_index=True
    )
    build_examples(items, impressions, path / "data", max_history=MAX_HISTORY)
    (path / "maps").symlink_to(shop.maps)
    log = impressions.merge(items, on="item_id", how="left", validate="many_to_one")
    return Shop(path, items, impressions, log)


def _of_different_sizes(impressions):
    """Less impressions, in requests of different sizes, with position and weight."""
    rng = np.random.default_rng(0)
    impressions = impressions[rng.random(len(impressions)) < 0.6]
    impressions = impressions.reset_index(drop=True)
    return impressions.assign(
        position=impressions.groupby(["user_id", "timestamp"]).cumcount(),
        weight=rng.choice([0.0, 0.5, 2.0], len(impressions)),
    )
