"""Makes a SYNTHETIC shop: JPEG photos, a catalogue, a click log and its truth.

What a user likes is a colour, a pattern or a shape, and WHICH of the three counts
depends on the item's category. Only the photo shows them: no id or attribute column
gives them away, and no photo gives its category away. Items have a long-tailed
popularity and enter the shop over 30 days, so the test days show unseen items.

    logit P(click) = -1.2 ± 1.25 + 0.4 (user + item + category taste) - 0.3 price

with + where the user likes the item's value of the attribute that its category is
bought for; a user likes half of the values of each attribute.

A moment shows a user one item or, with a larger request size, several different ones,
each of which is clicked or not by itself.

`oracle.csv` holds the true click probability of every impression, `oracle.json` the
metrics of that truth on the test split: the ceiling for any model.
"""

import json

import numpy as np
import pandas as pd
from PIL import Image

from hccm_tf.atomic import new_folder
from hccm_tf.errors import InputError
from hccm_tf.metrics import evaluate_predictions
from hccm_tf.progress import advance, progress
from tfrecords_tools.demo.photos import COLOURS, PATTERNS, SHAPES, draw_photo

# Category -> the visual attribute that its buyers look at.
CATEGORIES = {
    "dress": "colour",
    "lamp": "colour",
    "cup": "colour",
    "scarf": "pattern",
    "carpet": "pattern",
    "cushion": "pattern",
    "earring": "shape",
    "mirror": "shape",
    "clock": "shape",
}
ATTRIBUTES = {"colour": COLOURS, "pattern": PATTERNS, "shape": SHAPES}
DAYS = 30
START = 1_700_000_000
SECONDS_PER_DAY = 86_400
# Of the first day's items at least so many for each that a moment shows: then different
# ones are soon drawn, however unlike their popularity is.
ITEMS_FOR_EACH = 2


def make_items(num_items, rng):
    """Catalogue with the hidden visual attributes as columns `_<attribute>`."""
    entry_day = np.where(
        rng.random(num_items) < 0.5, 0.0, rng.uniform(0, DAYS, num_items)
    )
    items = pd.DataFrame(
        {
            "item_id": 10_000 + rng.permutation(num_items),
            "category": rng.permutation(np.resize(list(CATEGORIES), num_items)),
            "price": np.round(np.exp(rng.normal(3, 0.5, num_items)), 2),
            "_entry_day": entry_day,
            "_popularity": (1.0 + rng.permutation(num_items)) ** -0.8,
            "_quality": rng.normal(size=num_items),
        }
    )
    # A category without any item could not be shown on the first day.
    first = items.groupby("category")._entry_day.idxmin()
    items.loc[first, "_entry_day"] = 0.0
    for name, values in ATTRIBUTES.items():
        items[f"_{name}"] = rng.integers(len(values), size=num_items)
    items.insert(1, "image", items.item_id.map("{}.jpg".format))
    return items


def _draw_items(items, seconds, category, rng):
    """Rows of the items that are shown: popular ones and new ones more often.

    Args:
        items: data frame of `make_items`.
        seconds: `[N]`, when they are shown.
        category: int64 `[N]`, place of the category that is shown.
        rng: `numpy.random.Generator`.

    Returns:
        int64 `[N]`.
    """
    names = list(CATEGORIES)
    item = np.empty(len(seconds), np.int64)
    item_category = items.category.map(names.index).to_numpy()
    item_entry_day = items._entry_day.to_numpy()
    half_day = (seconds // (SECONDS_PER_DAY / 2)).astype(int)
    for step in range(2 * DAYS):
        age = step / 2 - item_entry_day
        weight = items._popularity.to_numpy() * (1 + 3 * (age < 3)) * (age >= 0)
        for index in range(len(names)):
            rows = np.flatnonzero((half_day == step) & (category == index))
            if not rows.size:
                continue
            shown = np.where(item_category == index, weight, 0)
            item[rows] = rng.choice(len(items), rows.size, p=shown / shown.sum())
    return item


def _draw_shown(items, seconds, request, cumulative, rng):
    """What is shown: the items of a request are different ones.

    Args:
        items: data frame of `make_items`.
        seconds: `[N]`, when they are shown.
        request: int64 `[N]`, ascending: which request each is shown in.
        cumulative: `[N, C]`, the cumulative probabilities of its user's categories.
        rng: `numpy.random.Generator`.

    Returns:
        `(item, category)`: int64 `[N]` each, rows of `items` and places of categories.
    """
    item, category = np.empty((2, len(seconds)), np.int64)
    rows = np.arange(len(seconds))
    while rows.size:
        drawn = (rng.random((rows.size, 1)) > cumulative[rows]).sum(1)
        category[rows] = np.minimum(drawn, len(CATEGORIES) - 1)
        item[rows] = _draw_items(items, seconds[rows], category[rows], rng)
        shown = pd.DataFrame({"request": request, "item": item})
        rows = np.flatnonzero(shown.duplicated())
    return item, category


def make_impressions(items, num_users, num_impressions, rng, request_size=1):
    """Impressions in order of time, with the true click probability in `ctr`.

    Args:
        items: data frame of `make_items`.
        num_users: number of users.
        num_impressions: number of impressions.
        rng: `numpy.random.Generator`.
        request_size: number of items that a user is shown at a time; the last request
            has what is left.

    Raises:
        InputError: if there are too few items for requests of this size.
    """
    most = int((items._entry_day == 0).sum()) // ITEMS_FOR_EACH
    if request_size > most:
        raise InputError(
            f"request_size: with these {len(items)} items at most {most}, half of what "
            f"the shop has on its first day. Received: {request_size}"
        )
    names = list(CATEGORIES)
    activity = np.exp(rng.normal(0, 0.5, num_users))
    category_taste = rng.normal(size=(num_users, len(names)))
    visual_taste = {
        name: np.argsort(rng.random((num_users, len(values))), axis=1)
        < len(values) // 2
        for name, values in ATTRIBUTES.items()
    }
    user_bias = rng.normal(size=num_users)
    num_requests = -(-num_impressions // request_size)
    request = np.arange(num_impressions) // request_size
    seconds = np.sort(rng.uniform(0, DAYS * SECONDS_PER_DAY, num_requests))[request]
    user = rng.choice(num_users, num_requests, p=activity / activity.sum())[request]
    exposure = np.exp(0.7 * category_taste)
    cumulative = np.cumsum(exposure / exposure.sum(1, keepdims=True), axis=1)
    item, category = _draw_shown(items, seconds, request, cumulative[user], rng)
    shown = items.iloc[item].reset_index(drop=True)
    taste = np.zeros(num_impressions)
    for name in ATTRIBUTES:
        counts = shown.category.map(CATEGORIES).to_numpy() == name
        liked = visual_taste[name][user, shown[f"_{name}"].to_numpy()]
        taste += counts * np.where(liked, 1.25, -1.25)
    logit = -1.2 + taste - 0.3 * (np.log(shown.price.to_numpy()) - 3) / 0.5
    logit += 0.4 * (
        user_bias[user] + shown._quality.to_numpy() + category_taste[user, category]
    )
    ctr = 1 / (1 + np.exp(-logit))
    place = request / num_requests
    return pd.DataFrame(
        {
            "user_id": 1 + user,
            "item_id": shown.item_id,
            "timestamp": START + seconds.astype(np.int64),
            "label": (rng.random(num_impressions) < ctr).astype(np.int64),
            "split": np.select(
                [place < 0.7, place < 0.8], ["train", "validation"], "test"
            ),
            "hour": (seconds // 3600 % 24).astype(np.int64),
            "ctr": ctr,
        }
    )


def _draw_photos(items, folder, rng):
    """Draws the photos of `make_items` into a folder."""
    for row in items.itertuples(index=False, name=None):
        row = dict(zip(items.columns, row, strict=True))
        photo = draw_photo(row["_colour"], row["_pattern"], row["_shape"], rng)
        Image.fromarray(photo).save(folder / row["image"], quality=90)
        advance(1)


def make_demo(output_dir, num_items, num_users, num_impressions, seed, request_size=1):
    """Writes the shop into `output_dir` and returns the oracle's test metrics."""
    rng = np.random.default_rng(seed)
    items = make_items(num_items, rng)
    impressions = make_impressions(items, num_users, num_impressions, rng, request_size)
    test = impressions[impressions.split == "test"]
    oracle = evaluate_predictions(test.label, test.ctr, test.user_id)
    seen = impressions.item_id[impressions.split == "train"]
    with new_folder(output_dir) as folder:
        (folder / "images").mkdir()
        with progress("drawing", len(items), "photo"):
            _draw_photos(items, folder / "images", rng)
        visible = [name for name in items.columns if not name.startswith("_")]
        items[visible].to_csv(folder / "items.csv", index=False)
        impressions.drop(columns="ctr").to_csv(folder / "impressions.csv", index=False)
        impressions.to_csv(folder / "oracle.csv", index=False)
        (folder / "oracle.json").write_text(json.dumps(oracle, indent=2) + "\n")
    unseen = (~test.item_id.isin(seen)).mean()
    said = ", ".join(f"{name} {value:.4f}" for name, value in oracle.items())
    print(
        f"synthetic shop: {num_items} photos, {num_users} users, {num_impressions} "
        f"impressions, {request_size} at a time, click rate "
        f"{impressions.label.mean():.3f}; {unseen:.1%} of test impressions show an "
        f"item unseen in training\noracle on test: {said}\n-> {output_dir}"
    )
    return oracle
