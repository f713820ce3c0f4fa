"""Semantic ids against residual k-means step by step in NumPy."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.preparation import centroids as module
from hccm_tf.preparation.centroids import Centroids
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.preparation.feature_maps.import_maps import import_feature_maps
from hccm_tf.preparation.semantic_ids import COLUMNS, write_semantic_ids
from tests.reference import read_maps

NUM_CODES = 5


@pytest.fixture(scope="module")
def items_csv(shop, tmp_path_factory):
    """The shop's catalogue, with text that looks like numbers."""
    path = tmp_path_factory.mktemp("items") / "items.csv"
    items = shop.items.assign(code=[f"{n:03d}" for n in range(len(shop.items))])
    items.loc[0, "code"] = 'a "quoted", one'
    items.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def written(shop, items_csv, tmp_path_factory):
    output = tmp_path_factory.mktemp("ids") / "with_ids.csv"
    write_semantic_ids(shop.maps, items_csv, output, num_codes=NUM_CODES)
    return output


def _codes(store, centroids):
    """Image → codes, one image and level at a time."""
    maps = {name: m.astype(np.float64) for name, m in read_maps(store).items()}
    pooled = {name: values.mean((0, 1)) for name, values in maps.items()}
    codes = {}
    for name, vector in pooled.items():
        rest, codes[name] = (
            (vector - centroids.channel_mean) / centroids.channel_std,
            [],
        )
        for level in centroids.centroids:
            distances = [np.linalg.norm(rest - centroid) for centroid in level]
            codes[name].append(int(np.argmin(distances)))
            rest = rest - level[codes[name][-1]]
    return codes


def test_the_columns_are_residual_codes(shop, items_csv, written, capsys):
    centroids = Centroids.load(written.with_suffix(".centroids.npz"))
    assert centroids.centroids.shape == (3, NUM_CODES, shop.store.shape[-1])
    codes = _codes(shop.maps, centroids)
    before = pd.read_csv(items_csv, dtype=str, keep_default_na=False)
    after = pd.read_csv(written, dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(after[before.columns], before)
    assert list(after.columns) == [*before.columns, *COLUMNS]
    missing = 0
    for row in after.itertuples():
        found = [getattr(row, name) for name in COLUMNS]
        assert found == [str(code) for code in codes.get(row.image, [""] * 3)]
        missing += row.image not in codes
    assert missing >= 3
    # More than one code a level is in use, and each level leaves less.
    assert all(after[name].nunique() > 2 for name in COLUMNS)
    _, explained = centroids.encode(shop.store)
    assert 0.2 < explained[0] < explained[1] < explained[2] < 1


def test_the_share_that_is_explained(shop, written):
    centroids = Centroids.load(written.with_suffix(".centroids.npz"))
    codes, (first, *_) = centroids.encode(shop.store)
    pooled = np.stack(
        [m.mean((0, 1), np.float64) for m in read_maps(shop.maps).values()]
    )
    vectors = (pooled - centroids.channel_mean) / centroids.channel_std
    nearest = [_codes(shop.maps, centroids)[name][0] for name in read_maps(shop.maps)]
    rest = vectors - centroids.centroids[0][nearest]
    assert first == pytest.approx(1 - (rest**2).sum() / (vectors**2).sum(), abs=1e-3)
    assert codes[0].tolist() == [-1, -1, -1] and (codes[shop.store.rows + 1] >= 0).all()


def test_old_centroids_give_old_photos_their_codes(
    shop, items_csv, written, tmp_path, monkeypatch
):
    """Also where batches and the store's moments are others."""
    store = shop.store
    mean, std = store.channel_mean + 1, store.channel_std * 2
    moved = store.standardised_as(mean, std)
    monkeypatch.setattr(FeatureMapStore, "open", classmethod(lambda *_: moved))
    monkeypatch.setattr(module, "BATCH_SIZE", 7)
    parquet = tmp_path / "items.parquet"
    pd.read_csv(items_csv).to_parquet(parquet)
    output = tmp_path / "again.parquet"
    centroids = written.with_suffix(".centroids.npz")
    write_semantic_ids(shop.maps, parquet, output, centroids)
    again, first = pd.read_parquet(output), pd.read_csv(written)
    for name in COLUMNS:
        np.testing.assert_array_equal(again[name].astype(float), first[name])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.parquet",
        "items.parquet",
    ]


def test_a_seed_gives_the_same_centroids(shop, monkeypatch):
    monkeypatch.setattr(module, "IMAGES_PER_CODE", 4)
    fits = [Centroids.fit(shop.store, NUM_CODES, seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(fits[0].centroids, fits[1].centroids)
    assert (fits[0].centroids != fits[2].centroids).any()


def test_fewer_images_than_codes(tmp_path):
    np.savez(tmp_path / "x.npz", ids=["a", "b", "c"], maps=np.eye(3))
    import_feature_maps(tmp_path / "x.npz", tmp_path / "maps", "clip")
    store = FeatureMapStore.open(tmp_path / "maps")
    codes, explained = Centroids.fit(store, 256).encode(store)
    assert sorted(codes[1:, 0]) == [0, 1, 2]
    # The first level's centroids are means of mini-batches, near the images.
    assert explained[0] > 0.9 and explained[1:] == pytest.approx([1, 1])


def test_few_images_for_each_code_are_a_warning(shop, items_csv, tmp_path, capsys):
    count = len(read_maps(shop.maps))
    advised = count // 8
    for codes, warns in ((256, True), (advised + 2, True), (advised, False)):
        output = tmp_path / f"{codes}.csv"
        write_semantic_ids(shop.maps, items_csv, output, num_codes=codes)
        used, said = min(codes, count), capsys.readouterr().err
        line = f"{used} codes for {count} images: .* --num_codes={advised} it has .*\n"
        assert re.fullmatch(line if warns else "", said)
    # The codes of centroids that are there cannot be fewer.
    centroids = (tmp_path / "256.centroids.npz").rename(tmp_path / "old.npz")
    write_semantic_ids(shop.maps, items_csv, tmp_path / "x.csv", centroids)
    assert capsys.readouterr().err == ""


def test_build_examples_takes_them_as_categories(shop, written, tmp_path):
    items, impressions = pd.read_csv(written), shop.impressions
    for kind in ("csv", "parquet"):
        path = tmp_path / f"items.{kind}"
        integers = items.astype(dict.fromkeys(COLUMNS, "Int64"))
        if kind == "csv":
            path.write_bytes(written.read_bytes())
        else:
            integers.to_parquet(path)
        build_examples(path, impressions, tmp_path / kind)
        schema = Schema.load(tmp_path / kind)
        for name in COLUMNS:
            feature = schema[name]
            assert (feature.kind, feature.dtype) == ("vocabulary", "int64")
            assert feature.candidate and schema[f"history_{name}"].shares == name


def test_what_fails_can_be_given_again(shop, tmp_path):
    items, output = tmp_path / "items.csv", tmp_path / "new" / "codes.csv"
    shop.items.to_csv(items, index=False)
    good = items.read_text()
    items.write_text(good + "one field\n")
    with pytest.raises(InputError, match="items.csv"):
        write_semantic_ids(shop.maps, items, output, num_codes=4)
    assert not [*output.parent.iterdir()]
    items.write_text(good)
    write_semantic_ids(shop.maps, items, output, num_codes=4)
    assert len(pd.read_csv(output)) == len(shop.items)


def test_what_is_wrong_is_named(shop, items_csv, written, tmp_path):
    def refused(message, feature_maps=shop.maps, items=items_csv, **arguments):
        output = arguments.pop("output", tmp_path / "x.csv")
        with pytest.raises(InputError, match=message):
            write_semantic_ids(feature_maps, items, output, **arguments)
        assert not output.exists()

    refused("^items: .*semantic_1, semantic_2, semantic_3 already", items=written)
    refused("^output: .*items.csv.*x.parquet", output=tmp_path / "x.parquet")
    refused("^centroids: .*items.csv", centroids=items_csv)
    old = Centroids.load(written.with_suffix(".centroids.npz"))
    other = dataclasses.replace(old, cnn={**old.cnn, "backbone": "clip"})
    other.save(tmp_path / "other.npz")
    refused("^centroids=.*another CNN", centroids=tmp_path / "other.npz")
    cut = dataclasses.replace(old, centroids=old.centroids[:2])
    cut.save(tmp_path / "cut.npz")
    refused("^centroids: .*not 3 levels", centroids=tmp_path / "cut.npz")
