import base64
import dataclasses
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from hccm_tf.data.dataset import Batches
from hccm_tf.errors import InputError
from hccm_tf.explanation import write_explanation
from hccm_tf.explanation.page import CHANNELS, NARROW, WIDE, render, shares
from hccm_tf.explanation.values import Explained, explain
from hccm_tf.serving.export import encode_images_of, item_table_of
from hccm_tf.serving.request import Impressions, impressions_request
from hccm_tf.serving.signatures import Signatures
from hccm_tf.training.evaluation import infer_function, predict
from tests.reference import read_maps
from tests.untrained import untrained

COUNT = 40
HOSTILE = "</style><script>alert(\"x\")</script> & '$model' <img src=http://x>"


class Page(html.parser.HTMLParser):
    """The elements of a page, `(tag, attributes)`; refuses tags that do not close.

    `texts[i]` is the text directly in element i.
    """

    def __init__(self, page):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes)
        if tag not in ("meta", "img"):
            self.open.append(len(self.elements))
        self.elements.append((tag, dict(attributes)))
        self.texts.append("")

    def handle_endtag(self, tag):
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] += data

    def all(self, tag):
        return [element for element in self.elements if element[0] == tag]


@pytest.fixture(scope="module")
def explained(shop, fitted):
    """The first test impressions, by each model."""
    return {
        name: explain(estimator.fitted_.trained, estimator.fitted_.batches, COUNT)
        for name, estimator in fitted.items()
    }


@pytest.fixture(scope="module")
def pages(shop, fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, estimator in fitted.items():
        estimator.explain(shop.data, folder / name, shop.images, COUNT)
    return {name: (folder / name).read_text("utf-8") for name in fitted}


def _signatures(trained, batches):
    table, store = None, batches.images
    if store is not None:
        table = encode_images_of(trained, batches.data_dir, store, "float32")
    forms = trained.definition.forms(trained.keras_model)
    items = item_table_of(trained, batches.data_dir)
    return Signatures(trained.definition, forms, table, items)


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_values_are_those_of_an_export(shop, fitted, explained, name):
    rows = Impressions(shop.data, "test", COUNT).rows
    request = impressions_request(rows, shop.schema, name == "hccm")
    found = fitted[name].fitted_
    expected = _signatures(found.trained, found.batches).explain(request)
    log = fitted[name].predictions(shop.data)[:COUNT]
    assert [one.label for one in explained[name]] == log.label.tolist()
    np.testing.assert_allclose([one.ctr for one in explained[name]], log.ctr, atol=1e-6)
    lengths = [len(row["history_item_id"]) for row in rows]
    assert len(set(lengths)) > 1
    for place, (one, clicks) in enumerate(zip(explained[name], lengths, strict=True)):
        assert set(one.attention) == set(expected)
        for key, weights in one.attention.items():
            assert len(weights) == clicks
            np.testing.assert_allclose(
                weights, expected[key][place, :clicks], atol=1e-5
            )


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_impressions_of_requests(weighted_shop, name):
    shop, schema = weighted_shop, weighted_shop.schema
    found = Impressions(shop.data, "test", COUNT)
    sizes = [len(rows) for rows in found.requests]
    # All but one of the last request's.
    last = max(place for place, size in enumerate(sizes) if size > 1)
    count = sum(sizes[: last + 1]) - 1
    trained = untrained(name, schema, shop.store if name == "hccm" else None)
    batches = Batches(shop.data, schema, 3, shop.store if name == "hccm" else None)
    explained = explain(trained, batches, count)
    assert len(explained) == count > len(sizes)
    rows = Impressions(shop.data, "test", count).rows
    request = impressions_request(rows, schema, name == "hccm")
    expected = _signatures(trained, batches).explain(request)
    infer = infer_function(trained.keras_model)
    log = predict(infer, batches, "test")[:count]
    assert [one.label for one in explained] == log.label.tolist()
    np.testing.assert_allclose([one.ctr for one in explained], log.ctr, atol=1e-6)
    items = shop.log.item_id[log.row].tolist()
    assert [one.row["item_id"][0] for one in explained] == items
    lengths = shop.log.history[log.row].map(len)
    for place, (one, clicks) in enumerate(zip(explained, lengths, strict=True)):
        assert set(one.attention) == set(expected)
        for key, weights in one.attention.items():
            wanted = expected[key][place, :clicks]
            np.testing.assert_allclose(weights, wanted, atol=1e-5)


def test_channels_are_those_of_an_export(shop, fitted, explained):
    found = fitted["hccm"].fitted_
    signatures = _signatures(found.trained, found.batches)
    maps = read_maps(shop.maps)
    counts = shop.items.category.value_counts()
    with_image = [one for one in explained["hccm"] if one.channels]
    assert 0 < len(with_image) < COUNT
    for one in explained["hccm"]:
        image = one.row["image"][0].decode()
        assert (image in maps) == (one.channels is not None)
    for one in with_image[:5]:
        own, *others = one.channels
        assert own == one.row["category"][0].decode()
        assert len({own, *others}) == 4
        rest = counts.drop([own, *others])
        assert counts[others].min() >= rest.max()
        feature_map = maps[one.row["image"][0].decode()]
        np.testing.assert_array_equal(one.feature_map, feature_map)
        request = {
            "image_map": np.stack([feature_map] * 4),
            "category": np.array([name.encode() for name in one.channels]),
        }
        np.testing.assert_allclose(
            list(one.channels.values()),
            signatures.encode_images(request)["channel_attention"],
            atol=1e-5,
        )
    assert all(one.channels is None for one in explained["din"])


def test_histories_are_cut_as_for_the_model(shop):
    schema = shop.schema.with_max_history(2)
    rows = Impressions(shop.data, "test", COUNT).rows
    batches = Batches(shop.data, schema, COUNT)
    explained = explain(untrained("din", schema), batches, COUNT)
    for one, row in zip(explained, rows, strict=True):
        clicks = row["history_item_id"][-2:]
        assert one.row["history_item_id"] == clicks
        assert len(one.attention["history_attention"]) == len(clicks)


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_the_page_stands_alone(pages, explained, name):
    page = Page(pages[name])
    assert len(page.all("article")) == COUNT
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe"})
    for tag, attributes in page.elements:
        assert "href" not in attributes and "srcset" not in attributes
        if tag == "img":
            assert attributes["src"].startswith("data:image/") and attributes["alt"]
        else:
            assert "src" not in attributes
    without_images = re.sub('base64,[^"]*"', "", pages[name])
    for word in ("http", "//", "url(", "@import"):
        assert word not in without_images
    tables = sum(one.channels is not None for one in explained[name])
    assert len(page.all("table")) == tables


@pytest.mark.parametrize("name", ["din", "hccm"])
def test_pictures_are_sized_by_attention(pages, explained, name):
    sized = [a for _, a in Page(pages[name]).all("img") if "style" in a]
    title = {"din": "item attention", "hccm": "image attention"}[name]
    key = {"din": "history_attention", "hccm": "image_attention"}[name]
    for one in explained[name]:
        weights = one.attention[key]
        here, sized = sized[: len(weights)], sized[len(weights) :]
        shown = [re.search(rf"{title} (\S+?)(;|$)", a["title"])[1] for a in here]
        assert shown == [f"{weight:.4f}" for weight in weights]
        pixels = [float(re.search(r"width: ([\d.]+)px", a["style"])[1]) for a in here]
        order = np.argsort(weights)
        assert (np.diff(np.array(pixels)[order]) >= 0).all()
        assert all(NARROW <= width <= WIDE for width in pixels)
        items = [str(item) for item in one.row["history_item_id"]]
        assert [re.search(r"\d+", a["alt"])[0] for a in here] == items
    assert not sized


def test_shares():
    assert shares([]) == []
    assert shares([0.0, 0.0]) == [0, 0]
    assert shares([0.1, 0.4, 0.0]) == [0.25, 1, 0]
    assert shares([0.2, 0.2]) == [1, 1]
    assert shares([-1.0, 3.0, 0.0]) == [0, 1, 0.25]
    # All negative: 0 would be the largest.
    assert shares([-0.2, -0.1]) == [0, 0.5]


def test_ranks_of_the_channels(pages, explained):
    page = Page(pages["hccm"])
    cells = [
        place
        for place, (_, attributes) in enumerate(page.elements)
        if attributes.get("class") == "cell"
    ]
    for one in explained["hccm"]:
        if not one.channels:
            continue
        sort = {c: np.argsort(-w).tolist() for c, w in one.channels.items()}
        own = next(iter(sort))
        for rank in range(min(CHANNELS, len(sort[own]))):
            for category, order in sort.items():
                place = cells.pop(0)
                words = [text for text in page.texts[place : place + 7] if text.strip()]
                channel, weight = order[rank], one.channels[category][order[rank]]
                moved = sort[own].index(channel) - rank
                arrow = (
                    "=" if not moved else f"{'▲' if moved > 0 else '▼'} {abs(moved)}"
                )
                expected = [str(channel), f"{weight:.3f}"]
                expected += [] if category == own else [arrow]
                assert words[: len(expected)] == expected
    assert not cells


def test_thumbnails_are_the_pictures(shop, pages, explained):
    images = iter(Page(pages["hccm"]).all("img"))
    missing = 0
    for one in explained["hccm"]:
        for name in [one.row["image"][0], *one.row["history_image"]]:
            attributes = next(images)[1]
            content = base64.b64decode(attributes["src"].partition(",")[2])
            with Image.open(io.BytesIO(content)) as thumbnail:
                pixels = np.asarray(thumbnail.convert("RGB"), np.float32)
            try:
                with Image.open(shop.images / name.decode()) as image:
                    expected = np.asarray(image.resize(pixels.shape[:2]), np.float32)
            except OSError:  # a folder, no such file, no JPEG
                missing += 1
                assert attributes["class"] == "missing"
                assert attributes["alt"].endswith("no picture")
            else:
                assert "class" not in attributes
                assert "no picture" not in attributes["alt"]
                assert np.abs(pixels - expected).mean() < 12
        for _ in range(4 * CHANNELS if one.channels else 0):
            assert next(images)[1]["alt"].startswith("map of channel")
    assert missing and not list(images)


def test_pictures_that_are_missing_are_said(shop, fitted, tmp_path, capsys):
    trained = fitted["hccm"].fitted_
    batches = trained.batches_of(shop.data)
    write_explanation(tmp_path / "page.html", trained.trained, batches, tmp_path, 2)
    (count,) = re.findall(
        r"(\d+) of \1 images are not shown, such as \S+: no such",
        capsys.readouterr().out,
    )
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    names = [image[1] for image in page.all("img") if image[1].get("class")]
    assert len(names) >= int(count) > 2


def _hostile():
    row = {
        "item_id": [HOSTILE.encode()],
        "category": [HOSTILE.encode()],
        "image": [HOSTILE.encode()],
        "history_item_id": [HOSTILE.encode()],
        "history_category": [b"\xff$"],
        "history_image": [b""],
    }
    channels = {HOSTILE: np.array([0.1, 0.9]), "<b>cup": np.array([0.9, 0.1])}
    attention = {"image_attention": np.array([0.5])}
    return Explained(row, 1, 0.25, attention, channels, np.zeros((2, 2, 2)))


def test_text_of_the_data_is_escaped():
    page = Page(render("hccm", [_hostile()], {}))
    assert not page.all("script")
    assert all(a["src"].startswith("data:") for _, a in page.all("img"))
    assert HOSTILE in page.all("img")[0][1]["alt"]
    assert f"item {HOSTILE}" in page.all("img")[1][1]["alt"]
    titles = [
        t for t, (tag, _) in zip(page.texts, page.elements, strict=True) if tag == "h2"
    ]
    assert titles == [f"1. item {HOSTILE}, {HOSTILE}"]
    heads = [
        t for t, (tag, _) in zip(page.texts, page.elements, strict=True) if tag == "th"
    ]
    assert heads == [f"{HOSTILE} ", "<b>cup "]


def test_impressions_with_little():
    one = Explained({"image": [b""], "history_image": []}, 0, 0.5, {})
    page = Page(render("din", [one], {}))
    assert "No click before" in "".join(page.texts)
    assert page.all("img")[0][1]["alt"] == "item, no picture"
    assert "not clicked" in "".join(page.texts)


def test_attention_that_does_not_see_the_category_has_no_ranks(shop):
    features = [f for f in shop.schema.features if "category" not in f.name]
    schema = dataclasses.replace(shop.schema, features=tuple(features))
    trained = untrained("hcm", schema, shop.store, channel_attention=True)
    found = explain(trained, Batches(shop.data, schema, 5, shop.store), 5)
    assert all(one.attention and one.channels is None for one in found)


def test_a_model_without_attention_is_an_error(shop, tmp_path):
    arguments = (
        untrained("base", shop.schema),
        Batches(shop.data, shop.schema, 2),
        shop.images,
        2,
    )
    with pytest.raises(InputError, match="^explain: .*base has no attention"):
        write_explanation(tmp_path / "page.html", *arguments)
    assert not list(tmp_path.iterdir())


def test_the_legend_says_what_is_true_of_each_attention():
    row = {"image": [b""], "history_image": [b"", b""]}
    attention = {
        "history_attention": np.array([-0.25, 0.5]),
        "image_attention": np.array([0.375, 0.625]),
    }
    page = "".join(Page(render("hccm", [Explained(row, 0, 0.5, attention)], {})).texts)
    assert "The item attention is not normalised and may be negative." in page
    assert "The image attention is" not in page
    # Each click has both numbers, that of the picture's size first.
    assert "0.375-0.250" in page and "0.6250.500" in page
    attention = {"image_attention": np.array([0.25, 0.5])}
    page = "".join(Page(render("hccm", [Explained(row, 0, 0.5, attention)], {})).texts)
    assert "The image attention is not normalised." in page
