"""`comparison.html`: the same tables as the Markdown, the plots in it, nothing else."""

import base64
import copy
import html.parser
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from hccm_tf.comparison.page import render
from hccm_tf.comparison.plots import draw, over_seeds
from tests.comparison.test_compare import Trainer, _compare, _words

LOADS = {"script", "link", "iframe", "object", "embed", "base", "video", "audio"}
SVG = "data:image/svg+xml;base64,"


class Page(html.parser.HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.images = set(), [], {}
        self.rows, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.addresses += [attributes[n] for n in ("src", "href") if n in attributes]
        if tag == "table":
            # What is wider than the page is moved in a box of its own.
            assert self.open[-1] == ("div", "scroll")
        if tag == "img":
            self.images[attributes["alt"]] = attributes["src"]
        elif tag != "meta":
            self.open.append((tag, attributes.get("class")))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if {"td", "th"} & set(tags):
            self.rows[-1][-1] += data
        elif tags[-1:] != ["style"]:
            self.words.append(data)


@pytest.fixture(scope="module")
def compared(shop, tmp_path_factory):
    """`(result, page, Markdown, run folders of each arm)`."""
    folder = tmp_path_factory.mktemp("page")
    trainer = Trainer(shop)
    arms = "trees,din,hccm"
    result = _compare(_words(shop, folder, "--search_trials=1", arms=arms), trainer)
    texts = [(folder / f"comparison.{kind}").read_text() for kind in ("html", "md")]
    chosen = [
        [folder / "runs" / arm["label"] / f"trial-{arm['chosen_trial']}" / f"seed-{s}"]
        for arm in result["arms"]
        for s in result["seeds"]
    ]
    run_dirs = np.reshape(chosen, (3, 3)).tolist()
    return result, *texts, run_dirs


def test_it_loads_nothing(compared):
    page = Page(compared[1])
    assert not page.tags & LOADS and page.addresses
    assert all(address.startswith(SVG) for address in page.addresses)
    assert "url(" not in compared[1] and "@import" not in compared[1]
    assert len(page.images) == 5
    for shows, address in page.images.items():
        picture = ET.fromstring(base64.b64decode(address.removeprefix(SVG)))
        assert picture.tag == "{http://www.w3.org/2000/svg}svg" and shows
        links = [v for e in picture.iter() for n, v in e.items() if n.endswith("href")]
        # Within itself.
        assert links and all(link.startswith("#") for link in links)
        assert not picture.findall(".//{http://www.w3.org/2000/svg}script")


def test_it_says_what_the_markdown_says(compared):
    page, lines = Page(compared[1]), compared[2].splitlines()
    expected = [
        [cell.strip().replace("**", "") for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|") and not line.startswith("| ---")
    ]
    assert page.rows == expected and len(expected) > 15
    said = " ".join(" ".join(page.words).split())
    paragraphs = " ".join(line for line in lines if not line.startswith("|"))
    for words in paragraphs.replace("#", "").split("**"):
        assert " ".join(words.split()) in said


def test_arms_are_text(compared):
    result = copy.deepcopy(compared[0])
    result["arms"][0]["label"] = "<script>&amp;"
    page = Page(render(result, {}))
    assert not page.tags & LOADS and not page.images
    assert "<script>&amp;" in [cell for row in page.rows for cell in row]


def test_the_same_figures_give_the_same_plots(compared):
    result, text, _, run_dirs = compared
    plots = draw(result, run_dirs)
    assert set(plots) == {"auc", "gains", "slices", "val_auc", "loss"}
    assert set(plots.values()) == set(Page(text).images.values())
    # Trees alone learn no curve.
    result = {**result, "arms": result["arms"][:1]}
    slices = [{**part, "auc": part["auc"][:1]} for part in result["slices"]]
    trees = draw({**result, "slices": slices}, run_dirs[:1])
    assert set(trees) == {"auc", "gains", "slices"}


def test_curves_over_seeds():
    rng = np.random.default_rng(0)
    seeds = [rng.random(epochs) for epochs in (4, 2, 3)]
    histories = [
        pd.DataFrame({"epoch": range(len(aucs)), "val_auc": aucs}) for aucs in seeds
    ]
    curve = over_seeds(histories, "val_auc")
    assert curve.index.tolist() == [1, 2, 3, 4]
    for epoch, row in curve.iterrows():
        reached = [aucs[epoch - 1] for aucs in seeds if len(aucs) >= epoch]
        expected = np.mean(reached), min(reached), max(reached), len(reached)
        assert row.tolist() == pytest.approx(expected)
