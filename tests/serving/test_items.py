"""The item table: requests of ids alone against the model, and against examples."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.column_names import input_name
from hccm_tf.data.dataset import Batches
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.item_features import carried, of_items
from hccm_tf.data.parsing import parse_spec
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.build import build_examples
from hccm_tf.serving.export import export, item_table_of
from hccm_tf.serving.exported_version import Version
from hccm_tf.serving.items import ITEM_KEYS
from hccm_tf.serving.refresh import refresh
from hccm_tf.serving.request import Impressions, impressions_request, rank_request
from hccm_tf.serving.signatures import Signatures
from tests.reference import COLLIDING, vocabulary_index
from tests.serving.asking import ask
from tests.untrained import untrained

ROWS, ITEMS, SPLIT = 240, 12, "train"
# One of two ids with the same key; the catalogue lacks the other one.
KNOWN, OTHER = COLLIDING[0]
ATTRIBUTES = ["category", "brand", "ad-position", "price"]
OF_CLICKS = ["history_category", "history_brand", "history_ad-position"]


def _items():
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "item_id": [KNOWN, *(f"item {place}" for place in range(1, ITEMS))],
            "image": [f"{place}.jpg" for place in range(ITEMS)],
            "category": rng.integers(0, 3, ITEMS),
            "brand": ["p", "q", None, "r", "p", "q"] * 2,
            "ad-position": rng.integers(0, 4, ITEMS),
            "price": [*rng.random(ITEMS - 1).round(3), None],
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder of requests of up to four items, with attributes."""
    rng = np.random.default_rng(0)
    items, second = _items(), np.arange(ROWS) // 4
    log = pd.DataFrame(
        {
            "user_id": second % 3,
            "item_id": items.item_id.to_numpy()[rng.integers(0, ITEMS, ROWS)],
            "timestamp": second,
            "label": rng.integers(0, 2, ROWS),
            "hour": second % 5,
        }
    )
    path = tmp_path_factory.mktemp("items") / "data"
    build_examples(items, log[rng.random(ROWS) < 0.8], path, max_history=5)
    return path


@pytest.fixture(scope="module")
def trained(data):
    """`din` with weights that let every input count."""
    keras.utils.set_random_seed(0)
    trained = untrained("din", DataFolder(data).schema())
    rng = np.random.default_rng(0)
    for weight in trained.keras_model.weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    return trained


@pytest.fixture(scope="module")
def version(data, trained, tmp_path_factory):
    return export(trained, data, None, tmp_path_factory.mktemp("items") / "model")


@pytest.fixture(scope="module")
def signatures(version):
    return tf.saved_model.load(str(version)).signatures


def _records(data):
    return Impressions(data, SPLIT, 9999).records


def _changed(record, change):
    example = tf.train.Example.FromString(record)
    change(example.features.feature)
    return example.SerializeToString()


def _without(*names):
    def change(features):
        for name in names:
            features.pop(name, None)

    return change


def _rank(signatures, records):
    return ask(signatures["rank_examples"], {"examples": records})["ctr"]


def _predicted(trained, records):
    """What the model says of whole records, without an export, `[R, N]`."""
    raw = tf.io.parse_example(records, parse_spec(trained.schema))
    inputs = trained.schema.index_all(raw)
    sizes = raw["label"].row_lengths()
    mask = tf.sequence_mask(sizes)
    ctr = trained.keras_model({**inputs, "candidate_mask": mask}, training=False)
    return tf.where(mask, ctr[..., 0], 0.0).numpy()


def test_a_request_carries_ids(data, trained, signatures):
    of_user = {"user_id", "hour"}
    ids = {"item_id", "history_item_id", "history_length"}
    for name in ("serving_default", "rank", "explain"):
        found = set(signatures[name].structured_input_signature[1])
        assert found == of_user | ids | (
            {"candidate_mask"} if name == "rank" else set()
        )
    impressions = Impressions(data, SPLIT, 9999)
    request = rank_request(impressions.requests, trained.schema, False)
    found = ask(signatures["rank"], request)["ctr"]
    expected = _predicted(trained, impressions.records)
    assert expected[expected > 0].std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-6)
    request = impressions_request(impressions.rows, trained.schema, False)
    found = ask(signatures["serving_default"], request)["ctr"]
    np.testing.assert_allclose(found, expected[expected > 0], atol=1e-6)


def test_the_tables_values_are_those_of_the_catalogue(data, trained, signatures):
    items, schema = _items(), trained.schema
    columns = {
        "item_id": items.item_id.to_numpy(object),
        "category": items.category.to_numpy(),
        "brand": items.brand.fillna("").to_numpy(object),
        "column__ad_2d_position": items["ad-position"].to_numpy(),
        "price": items.price.to_numpy(np.float32),
    }
    encoded = ask(signatures["encode_items"], columns)
    table = pd.read_parquet(data / "vocabularies" / "brand.parquet")
    expected = [vocabulary_index(table.value, b) for b in columns["brand"]]
    assert encoded["brand"].tolist() == expected and 1 in expected
    price = np.nan_to_num(columns["price"], nan=schema["price"].mean)
    np.testing.assert_array_equal(encoded["price"], price)
    # And what is looked up is what training reads, to the bit.
    encoded["price"] = schema.index("price", encoded["price"]).numpy()
    inputs, *_ = next(iter(Batches(data, schema, 10**6).dataset(SPLIT)))
    mask = inputs["candidate_mask"].numpy()
    item = np.concatenate(
        [row["item_id"] for row in Impressions(data, SPLIT, 9999).rows]
    )
    place = [items.item_id.tolist().index(i.decode()) for i in item]
    for name in columns.keys() - {"item_id"}:
        np.testing.assert_array_equal(inputs[name].numpy()[mask], encoded[name][place])


def test_what_an_example_lacks_is_looked_up(data, signatures):
    records = _records(data)
    whole = _rank(signatures, records)
    bare = [_changed(r, _without(*ATTRIBUTES, *OF_CLICKS)) for r in records]
    np.testing.assert_array_equal(_rank(signatures, bare), whole)
    # Some requests give all, some a part, some nothing.
    some = [
        _changed(r, _without(*[n for i, n in enumerate(names) if (place >> i) % 2]))
        for place, r in enumerate(records)
        for names in [[*ATTRIBUTES, *OF_CLICKS]]
    ]
    np.testing.assert_array_equal(_rank(signatures, some), whole)
    examples = Impressions(data, SPLIT, 9999).examples
    bare = [_changed(e, _without(*ATTRIBUTES, *OF_CLICKS)) for e in examples]
    for name, given, answer in (
        ("serve_examples", "examples", "ctr"),
        ("regress", "inputs", "outputs"),
    ):
        found, expected = (
            ask(signatures[name], {given: e})[answer] for e in (bare, examples)
        )
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found, whole[whole > 0], atol=1e-6)


def _other_brands(features):
    for name in ("brand", "history_brand"):
        values = features[name].bytes_list.value
        values[:] = [{b"p": b"r", b"r": b""}.get(value, b"p") for value in values]


def test_what_an_example_gives_wins(data, trained, signatures):
    records = _records(data)
    other = [_changed(record, _other_brands) for record in records]
    expected = _predicted(trained, other)
    difference = np.abs(expected - _predicted(trained, records))
    assert (difference > 1e-3).any(axis=1).mean() > 0.5
    np.testing.assert_allclose(_rank(signatures, other), expected, atol=1e-6)
    bare = [
        _changed(record, _without("category", "history_category")) for record in other
    ]
    np.testing.assert_array_equal(_rank(signatures, bare), _rank(signatures, other))


def test_an_unknown_item_has_no_attributes(data, trained, signatures):
    """Neither one of another key, nor one of a key that is another one's."""
    record = next(r for r in _records(data) if min(_sizes(r)))

    def named(item, given):
        def change(features):
            _without(*ATTRIBUTES, *OF_CLICKS)(features)
            count = len(features["item_id"].bytes_list.value)
            clicks = len(features["history_item_id"].bytes_list.value)
            assert count and clicks
            features["item_id"].bytes_list.value[:] = [item] * count
            features["history_item_id"].bytes_list.value[:] = [item] * clicks
            if given:
                missing = -(2**63)
                for prefix, number in (("", count), ("history_", clicks)):
                    for name in ("category", "ad-position"):
                        values = features[prefix + name].int64_list.value
                        values.extend([missing] * number)
                    features[prefix + "brand"].bytes_list.value.extend([b""] * number)
                features["price"].float_list.value.extend([np.nan] * count)

        return _changed(record, change)

    expected = _predicted(trained, [named(b"nowhere", given=True)])
    for item in (b"nowhere", OTHER.encode(), b""):
        for given in (False, True):
            found = _rank(signatures, [named(item, given)])
            np.testing.assert_allclose(found, expected, atol=1e-6)
    known = _rank(signatures, [named(KNOWN.encode(), given=False)])
    assert np.abs(known - expected).max() > 1e-3


def test_values_that_do_not_fit_name_the_column(data, signatures):
    record = next(r for r in _records(data) if _sizes(r)[0] > 2 and _sizes(r)[1] > 2)

    def fails(signature, change, match):
        with pytest.raises(tf.errors.InvalidArgumentError, match=match):
            ask(signatures[signature], {"examples": [_changed(record, change)]})

    for name, message in (
        ("brand", "brand.*need equal numbers of candidates"),
        ("history_brand", "history_brand.*need equal lengths"),
    ):
        fails("rank_examples", lambda f, n=name: f[n].bytes_list.value.pop(), message)
    (example, *_) = Impressions(data, SPLIT, 1).examples
    two = _changed(example, lambda f: f["brand"].bytes_list.value.append(b"p"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="brand.*of values"):
        ask(signatures["serve_examples"], {"examples": [two]})


def _ids(record):
    """Of a record, the items of its candidates and of its clicks."""
    features = tf.train.Example.FromString(record).features.feature
    return [features[n].bytes_list.value for n in ("item_id", "history_item_id")]


def _sizes(record):
    return [len(items) for items in _ids(record)]


def test_a_schema_without_ids_or_marks_is_told_the_columns(data, trained):
    schema = trained.schema
    unmarked = [dataclasses.replace(f, item=False) for f in schema.features]
    for features in (
        [f for f in schema.features if f.name != "history_item_id"],
        [f for f in schema.features if f.shares != "item_id" and f.name != "item_id"],
        unmarked,
    ):
        other = dataclasses.replace(schema, features=tuple(features))
        assert of_items(other) == () and carried(other) == other
    names = [feature.name for feature in of_items(schema)]
    assert names == [*ATTRIBUTES, *OF_CLICKS]
    # As one was that is older than the mark.
    schema = dataclasses.replace(schema, features=tuple(unmarked))
    older = untrained("din", schema)
    older.keras_model.set_weights(trained.keras_model.get_weights())
    items = item_table_of(older, data)
    forms = older.definition.forms(older.keras_model)
    signatures = Signatures(older.definition, forms, None, items)
    assert "encode_items" not in signatures.endpoints()
    impressions = Impressions(data, SPLIT, 9999)
    request = rank_request(impressions.requests, schema, False)
    assert {input_name(name) for name in [*ATTRIBUTES, *OF_CLICKS]} < set(request)
    expected = _predicted(trained, impressions.records)
    np.testing.assert_allclose(signatures.rank(request)["ctr"], expected, atol=1e-6)
    records = np.array(impressions.records, object)
    found = signatures.rank_examples(records)["ctr"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def _refreshed(version, items, tmp_path, **options):
    folder = tmp_path / "model"
    if not folder.exists():
        folder.mkdir()
        (folder / "1").symlink_to(version)
    items.to_parquet(tmp_path / "items.parquet")
    new = refresh(folder, tmp_path / "items.parquet", **options)
    return new, tf.saved_model.load(str(new)).signatures if new else None


def test_a_refresh_adds_changes_and_removes_items(
    data, trained, version, tmp_path, capsys
):
    items = _items()
    new, _ = _refreshed(version, items, tmp_path)
    assert new is None
    assert "0 items added, 0 changed, 0 removed" in capsys.readouterr().out
    records = [
        record
        for record in _records(data)
        for items in [{*_ids(record)[0], *_ids(record)[1]}]
        if b"item 3" in items and not {b"item 7", b"item 8"} & items
    ]
    assert len(records) > 3

    def named(old, now, **given):
        def change(features):
            for name in ("item_id", "history_item_id"):
                values = features[name].bytes_list.value
                values[:] = [now if value == old else value for value in values]
            _without(*ATTRIBUTES, *OF_CLICKS)(features)

        return [_changed(record, change) for record in records]

    # One more item is what another one was, which is now a third's like.
    changed = items.copy()
    changed.loc[ITEMS] = items.loc[3]
    changed.loc[ITEMS, "item_id"] = "new"
    changed.loc[3, ATTRIBUTES] = items.loc[5, ATTRIBUTES]
    changed = changed.drop(index=[7, 8])
    new, signatures = _refreshed(version, changed, tmp_path)
    assert "1 items added, 1 changed, 0 removed ->" in capsys.readouterr().out
    before = tf.saved_model.load(str(version)).signatures
    schema = trained.schema
    assert schema["item_id"].size == ITEMS
    unknown = b"never seen"

    def of(signatures, now):
        """Answers where an item of the vocabulary is another one by its attributes."""
        return _rank(signatures, named(b"item 3", now))

    # Ids that training did not see are alike: attributes alone differ.
    given = [_as_item(record, items.loc[3], unknown) for record in records]
    np.testing.assert_allclose(
        of(signatures, b"new"), _predicted(trained, given), atol=1e-6
    )
    assert np.abs(of(before, b"new") - of(signatures, b"new")).max() > 1e-3
    given = [_as_item(record, items.loc[5], b"item 3") for record in records]
    found = of(signatures, b"item 3")
    np.testing.assert_allclose(found, _predicted(trained, given), atol=1e-6)
    # What is no longer in the catalogue is as it was, or unknown.
    for kept in (b"item 7", b"item 1"):
        np.testing.assert_array_equal(of(signatures, kept), of(before, kept))
    new, signatures = _refreshed(version, changed, tmp_path, remove_missing=True)
    assert "0 items added, 0 changed, 2 removed ->" in capsys.readouterr().out
    assert np.abs(of(signatures, b"item 7") - of(before, b"item 7")).max() > 1e-3
    np.testing.assert_array_equal(of(signatures, b"item 1"), of(before, b"item 1"))
    assert len(Version(new).variable(ITEM_KEYS)) == len(changed)


def _as_item(record, item, name):
    """A record in which `item 3` is called otherwise and has another's attributes."""

    def change(features):
        for prefix in ("", "history_"):
            values = features[f"{prefix}item_id"].bytes_list.value
            places = [i for i, value in enumerate(values) if value == b"item 3"]
            for place in places:
                values[place] = name
                for column in ATTRIBUTES:
                    if prefix and column == "price":
                        continue
                    feature = features[prefix + column]
                    kind = feature.WhichOneof("kind")
                    value = item[column]
                    if column == "brand":
                        value = (value or "").encode()
                    getattr(feature, kind).value[place] = value

    return _changed(record, change)


def test_a_model_without_images_takes_none(version, tmp_path):
    with pytest.raises(InputError, match="^feature_maps: the model takes no images"):
        _refreshed(version, _items(), tmp_path, feature_maps="maps")
    with pytest.raises(InputError, match="^items: none"):
        _refreshed(version, _items()[:0], tmp_path, remove_missing=True)
    with pytest.raises(InputError, match="^items: .*no column ad-position"):
        _refreshed(version, _items().drop(columns="ad-position"), tmp_path)
