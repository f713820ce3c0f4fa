"""A tiny shop with everything that stands on its way to a model."""

import dataclasses
import pathlib

import pandas as pd

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.schema import Schema
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.feature_maps.extract import extract_feature_maps
from tests.conftest import MAPS, MAX_HISTORY
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


def make_shop(path):
    """60 items, 20 users, 1500 impressions, with awkward images.

    Of the items that are shown most, the first has no image, the second shares the
    image of the third, which is of another category, the fourth's file is missing and
    the fifth's is corrupt.
    """
    make_demo(path / "shop", 60, 20, 1500, seed=0)
    items = pd.read_csv(path / "shop" / "items.csv")
    impressions = pd.read_csv(path / "shop" / "impressions.csv")
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
