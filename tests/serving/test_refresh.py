"""A refreshed version against the Keras model, and against a table made afresh."""

import json
import re
import shutil
import signal
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf

from hccm_tf.data import ids
from hccm_tf.data.feature import MISSING_INTEGER
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.errors import InputError
from hccm_tf.serving import exported_version as version_module
from hccm_tf.serving import refresh as module
from hccm_tf.serving.export import CNN, export
from hccm_tf.serving.items import ITEM_KEYS, item_table
from hccm_tf.serving.model_card import CARD
from hccm_tf.serving.refresh import refresh
from hccm_tf.serving.representations import encode_catalogue
from hccm_tf.serving.request import Impressions, impressions_request
from hccm_tf.serving.signatures import Signatures
from hccm_tf.serving.versions import versions as versions_in
from hccm_tf.serving.whole import WARMUP
from tests import processes
from tests.reference import COLLIDING, read_maps
from tests.untrained import untrained

NEW = ["new0.jpg", "new1.jpg", "new2.jpg"]
# Refreshes a version and is killed when the variables are written.
KILLED = """
import os, signal, sys
import tensorflow as tf
from hccm_tf.serving.refresh import refresh
write = tf.raw_ops.SaveV2
def write_and_die(**arguments):
    write(**arguments)
    os.kill(os.getpid(), signal.SIGKILL)
tf.raw_ops.SaveV2 = write_and_die
refresh(*sys.argv[1:])
"""


def write_store(path, maps, cnn):
    """A float16 store as `extract_feature_maps` writes it; image name → map."""
    path.mkdir()
    names = sorted(maps)
    values = np.stack([maps[name] for name in names]).astype("<f2")
    file = path / "feature_maps-00000-of-00001.f16"
    values.tofile(file)
    keys = ids.image_keys(tf.constant(names)).numpy()
    images = pd.DataFrame({"image": names, "key": keys, "row": range(len(names))})
    images.sort_values("key").to_parquet(path / "images.parquet")
    metadata = {
        "format": 1,
        **cnn,
        "dtype": "float16",
        "shape": values.shape[1:],
        "shard_rows": [len(names)],
        "crc32": {file.name: zlib.crc32(file.read_bytes())},
        # A refresh standardises nothing.
        "channel_mean": [0.0] * values.shape[-1],
        "channel_std": [1.0] * values.shape[-1],
    }
    (path / "feature_maps.json").write_text(json.dumps(metadata))
    return path


@pytest.fixture(scope="module")
def maps(shop):
    """Image name → feature map, of the shop's images and of the new ones."""
    old = read_maps(shop.maps)
    first, second, *_ = old.values()
    mixed = [first[::-1], second[:, ::-1], (first + second) / 2]
    return old | dict(zip(NEW, mixed, strict=True))


@pytest.fixture(scope="module")
def store(shop, maps, tmp_path_factory):
    path = tmp_path_factory.mktemp("refresh") / "maps"
    return write_store(path, maps, shop.store.cnn)


@pytest.fixture(scope="module")
def items(shop, maps):
    """The shop without 5 items, with 2 categories changed and 6 new items."""
    items = shop.items[["item_id", "image", "category", "price"]]
    known = items[items.image.isin(list(maps))]
    gone, changed = np.split(known.drop_duplicates("image", keep=False).index[:7], [5])
    items = items.drop(gone)
    categories = sorted(shop.items.category.unique())
    for row in changed:
        place = categories.index(items.category[row]) + 1
        items.loc[row, "category"] = categories[place % len(categories)]
    new = pd.DataFrame(
        {
            "item_id": range(9000, 9006),
            "image": [*NEW, NEW[0], "nowhere.jpg", ""],
            "category": [*categories[:2], "spaceship", "rocket", *categories[:2]],
        }
    )
    new = new.assign(attribute=1.5, price=[3.0, 20.0, None, 5.0, 1e9, 7.0])
    items = pd.concat([items, new], ignore_index=True)
    items.loc[len(items)] = [9006, None, None, None, None]
    return items


@pytest.fixture(scope="module")
def items_csv(items, tmp_path_factory):
    path = tmp_path_factory.mktemp("items") / "items.csv"
    items.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def exported(fitted, versions, tmp_path_factory):
    """Type of the table → folder with one version."""
    int8 = tmp_path_factory.mktemp("refresh") / "int8"
    fitted["hccm"].export(int8, representation_dtype="int8")
    return {"float32": versions["hccm"].parent, "int8": int8}


@pytest.fixture
def export_dir(request, exported, tmp_path):
    """A folder with one version, of its own for each test."""
    dtype = getattr(request, "param", "float32")
    return shutil.copytree(exported[dtype], tmp_path / dtype)


both_types = pytest.mark.parametrize("export_dir", ["float32", "int8"], indirect=True)


def read_table(version):
    """Key → row (vector, scale) of a version's table, as the SavedModel loads it."""
    model = tf.saved_model.load(str(version))
    variables = model.signatures["serving_default"].variables
    variables = {v.name.partition(":")[0]: v.numpy() for v in variables}
    keys, vectors = (variables[f"representation_{n}"] for n in ("keys", "vectors"))
    scales = variables.get("representation_scales", np.ones(len(vectors), np.float32))
    assert (np.diff(keys) > 0).all()
    assert not vectors[0].any() and len(vectors) == len(scales) == len(keys) + 1
    return dict(zip(keys, zip(vectors[1:], scales[1:], strict=True), strict=True))


def _pairs(schema, items, maps):
    """Key → (image, category index) of the items whose image has a map."""
    items = items[items.image.isin(list(maps))]
    category = schema.index("category", tf.constant(items.category))
    keys = ids.pair_keys(ids.image_keys(tf.constant(items.image)), category)
    pairs = zip(items.image, category.numpy(), strict=True)
    return dict(zip(keys.numpy(), pairs, strict=True))


def _encoded(model, maps, pairs):
    """Rows of pairs by the Keras model."""
    inputs = {
        "image_map": np.stack([maps[image] for image, _ in pairs]),
        "image_category": np.array([category for _, category in pairs]),
    }
    return model.get_layer("image_encoder")(inputs, training=False).numpy()


@both_types
@pytest.mark.parametrize("remove_missing", [False, True])
def test_the_table_is_the_old_one_and_the_models_new_rows(
    fitted, export_dir, items, items_csv, store, maps, remove_missing, monkeypatch
):
    encoded, real = [], version_module.encode

    def encode(encoder, store, rows, *arguments):
        encoded.extend(rows)
        return real(encoder, store, rows, *arguments)

    monkeypatch.setattr(version_module, "encode", encode)
    version = refresh(export_dir, items_csv, store, remove_missing)
    assert version == export_dir / "2" and versions_in(export_dir) == [1, 2]
    old, table = read_table(export_dir / "1"), read_table(version)
    wanted = _pairs(fitted["hccm"].schema_, items, maps)
    new = {key: pair for key, pair in wanted.items() if key not in old}
    # 4 of new images, of which two are of one image and an unknown category.
    assert len(new) == 6 and len(encoded) == 6
    gone = set(old) - set(wanted)
    assert len(gone) == 7
    assert set(table) == set(wanted) | (set() if remove_missing else gone)
    for key in set(table) & set(old):
        for now, before in zip(table[key], old[key], strict=True):
            np.testing.assert_array_equal(now, before)
    vectors = np.stack([np.float32(table[key][0]) * table[key][1] for key in new])
    expected = _encoded(fitted["hccm"].model_, maps, new.values())
    steps = np.abs(expected).max(axis=1, keepdims=True) / 127
    bound = 0.501 * steps + 1e-5 if export_dir.name == "int8" else 1e-5
    assert (np.abs(vectors - expected) <= bound).all()
    assert expected.std(axis=0).min() > 1e-3


@both_types
def test_answers_are_those_of_a_table_made_afresh(
    fitted, shop, export_dir, items, items_csv, store
):
    estimator = fitted["hccm"]
    refresh(export_dir, items_csv, store, remove_missing=True)
    filled = items.fillna({"image": "", "category": ""})
    table = encode_catalogue(
        estimator.model_.get_layer("image_encoder"),
        FeatureMapStore.open(store),
        ids.image_keys(tf.constant(filled.image)).numpy(),
        estimator.schema_.index("category", tf.constant(filled.category)).numpy(),
        export_dir.name,
    )
    definition = estimator.fitted_.trained.definition
    catalogue = filled[["item_id", "category"]].assign(price=items.price.astype("f4"))
    catalogue = item_table(estimator.schema_, pa.Table.from_pandas(catalogue))
    forms = definition.forms(estimator.model_)
    afresh = Signatures(definition, forms, table, catalogue)
    rows = Impressions(shop.data, "test", 60).rows
    request = impressions_request(rows, estimator.schema_, with_images=True)
    models = [tf.saved_model.load(str(export_dir / name)) for name in ("1", "2")]
    old, signature = (model.signatures["serving_default"] for model in models)
    specs = signature.structured_input_signature[1]
    place = np.arange(60) % len(items)
    for name in ("image", "item_id"):
        request[name] = filled[name].to_numpy()[-len(place) :][place]
    request = {k: tf.constant(v, specs[k].dtype) for k, v in request.items()}
    found = signature(**request)["ctr"].numpy()
    expected = afresh.serving_default(request)["ctr"].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    is_new = np.isin(request["image"].numpy().astype(str), NEW)
    difference = np.abs(found - old(**request)["ctr"].numpy())
    assert is_new.any() and (difference[is_new] > 1e-5).all()


def test_an_ensemble_is_refreshed(shop, items_csv, items, maps, store, tmp_path):
    """Its rankers have variables of the same names."""
    trained = untrained("hccm", shop.schema, shop.store, ensemble_size=2)
    export(trained, shop.data, shop.store, tmp_path)
    version = refresh(tmp_path, items_csv, store)
    old, table = read_table(tmp_path / "1"), read_table(version)
    wanted = _pairs(trained.schema, items, maps)
    new = {key: pair for key, pair in wanted.items() if key not in old}
    assert len(new) == 6
    expected = _encoded(trained.keras_model, maps, new.values())
    found = np.stack([table[key][0] for key in new])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@both_types
def test_everything_else_is_as_it_was(export_dir, items_csv, store):
    old = export_dir / "1"
    (old / "assets").mkdir(exist_ok=True)
    (old / "assets" / "words.txt").write_text("kept")
    version = refresh(export_dir, items_csv, store)
    before, after = (
        {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
        for root in (old, version)
    )
    assert {str(path) for path in before - after} <= {"fingerprint.pb"}
    assert after <= before and WARMUP in after
    same = [path for path in after if path.parts[0] != "variables"]
    assert CARD in same
    for path in same:
        content = (old / path).read_bytes()
        if path == CARD:
            # Which says what came since.
            days, note = (version / path).read_text().split("\n## Refreshes\n\n- ")
            assert days.encode() == content
            assert re.fullmatch(
                r"\d{4}-\d\d-\d\d: version 1 with `items.csv`: 6 images added, "
                r"0 removed.*; 7 items added, 2 changed, 0 removed\n",
                note,
            )
            continue
        assert (version / path).read_bytes() == content
        assert not (version / path).samefile(old / path)
    checkpoints = [
        tf.train.load_checkpoint(str(root / "variables" / "variables"))
        for root in (old, version)
    ]
    shapes = [checkpoint.get_variable_to_shape_map() for checkpoint in checkpoints]
    assert set(shapes[0]) == set(shapes[1])
    changed = 0
    for name in shapes[0]:
        values = [np.asarray(c.get_tensor(name)) for c in checkpoints]
        assert values[0].dtype == values[1].dtype
        changed += not np.array_equal(*values)
    # Keys, checks and vectors, and of int8 their scales; items' keys and two columns.
    assert changed == (7 if export_dir.name == "int8" else 6)


def test_nothing_new_writes_nothing(
    export_dir, items, items_csv, maps, store, shop, capsys
):
    kept = shop.items[["item_id", "image", "category", "price"]]
    kept.to_csv(export_dir.parent / "same.csv", index=False)
    same = export_dir.parent / "same.csv"
    assert refresh(export_dir, same, store, remove_missing=True) is None
    assert "nothing to refresh" in capsys.readouterr().out
    assert versions_in(export_dir) == [1]
    assert refresh(export_dir, items_csv, store) == export_dir / "2"
    line = capsys.readouterr().out
    assert "6 images added, 0 removed" in line and f"-> {export_dir / '2'}" in line
    missing = set(items.image[items.image.fillna("") != ""]) - set(maps)
    found = re.search(r"(\d+) without a feature map, such as '(.*?)'", line)
    count, name = found.groups()
    assert (int(count), True) == (len(missing), name in missing)
    assert "; 7 items added, 2 changed, 0 removed ->" in line
    assert refresh(export_dir, items_csv, store) is None
    # Only removed.
    version = refresh(export_dir, items_csv, store, remove_missing=True)
    assert version == export_dir / "3"
    line = capsys.readouterr().out
    assert "0 images added, 7 removed" in line
    assert "; 0 items added, 0 changed, 5 removed ->" in line
    assert len(read_table(version)) == len(read_table(export_dir / "2")) - 7


def test_a_failure_leaves_no_version(export_dir, items_csv, store, monkeypatch):
    def write(**arguments):
        raise OSError("no more")

    monkeypatch.setattr(tf.raw_ops, "SaveV2", write)
    with pytest.raises(OSError, match="no more"):
        refresh(export_dir, items_csv, store)
    assert [path.name for path in export_dir.iterdir()] == ["1"]


def test_a_killed_run_leaves_no_version(export_dir, items_csv, store):
    arguments = [export_dir, items_csv, store]
    killed = processes.run(["-c", KILLED, *arguments])
    assert killed.returncode == -signal.SIGKILL
    # Beside what it was about, its lock, which no process has any more.
    assert versions_in(export_dir) == [1] and len(list(export_dir.iterdir())) == 3
    processes.run(
        [
            *("-m", "tfrecords_tools.refresh_export", "--remove_missing"),
            *(f"--export_dir={export_dir}", f"--items={items_csv}"),
            f"--feature_maps={store}",
        ],
        check=True,
    )
    assert sorted(path.name for path in export_dir.iterdir()) == ["1", "2"]
    assert len(read_table(export_dir / "2")) > 6


def test_errors(export_dir, items, items_csv, store, shop, maps, versions, tmp_path):
    def fails(match, export_dir=export_dir, items=items_csv, store=store, remove=False):
        with pytest.raises(InputError, match=match):
            refresh(export_dir, items, store, remove)

    fails("^export_dir=.*no version", export_dir=tmp_path / "nowhere")
    fails("^feature_maps: the model takes no", export_dir=versions["din"].parent)
    fails("^feature_maps.*no such file", store=tmp_path)
    other = shop.store.cnn | {"weights_sha256": "other"}
    store_of_other = write_store(tmp_path / "other", maps, other)
    fails("^feature_maps=.*of another CNN.*Received.*other", store=store_of_other)
    for column in ("image", "category", "item_id", "price"):
        path = tmp_path / f"{column}.csv"
        items.drop(columns=column).to_csv(path, index=False)
        fails(f"^items: .*no column {column}", items=path)
    for place, item, problem in ((3, None, "empty"), (4, 9000, "a repeated id")):
        path = tmp_path / f"{place}.csv"
        wrong = items.astype({"item_id": "Int64"})
        wrong.loc[wrong.index[place], "item_id"] = item
        wrong.iloc[[0, 1, 2, place, -7]].to_csv(path, index=False)
        fails(f"^items: column item_id, row [45]: {problem}", items=path)
    other = tmp_path / "other.csv"
    items[items.image == ""].to_csv(other, index=False)
    fails("^items: no image of the table", items=other, remove=True)
    (export_dir / "7").mkdir()
    fails("version 7 is damaged")
    assert versions_in(export_dir) == [1, 7]


def _cut(count):
    return lambda content: content[:-count]


def _flip(content):
    """Bits of a byte in the middle of the table, which is most of the file."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


DATA = "variables/variables.data-00000-of-00001"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (WARMUP, _cut(5)),
        (WARMUP, _flip),
        ("saved_model.pb", _cut(5)),
        ("variables/variables.index", _cut(5)),
        (DATA, _cut(5)),
        (DATA, _cut(5000)),
        (DATA, _flip),
        (CNN, _cut(5)),
    ],
)
def test_what_is_copied_is_looked_at(export_dir, items_csv, store, name, damage):
    """A server would refuse the new version; the old one may still be in its memory."""
    file = export_dir / "1" / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match="^export_dir=.*version 1 is damaged") as error:
        refresh(export_dir, items_csv, store)
    assert "\n" not in str(error.value)
    assert [path.name for path in export_dir.iterdir()] == ["1"]


def test_variables_that_share_a_name_are_refused(tmp_path):
    """A signature that reads one of them could be given the values of another."""
    own = tf.Module()
    own.keys = tf.Variable([1], name=ITEM_KEYS)
    own.first, own.second = (tf.Variable(i, name="kernel") for i in (1.0, 2.0))
    signature = [tf.TensorSpec([None], name="price")]
    encode = tf.function(lambda price: own.first * price, input_signature=signature)
    tf.saved_model.save(own, tmp_path / "1", signatures={"encode_items": encode})
    with pytest.raises(InputError, match="1 is damaged.*variables are called kernel"):
        version_module.Version(tmp_path / "1")


def test_categories_that_are_numbers(tmp_path):
    path = tmp_path / "items.csv"
    specs = {"image": tf.TensorSpec([None], tf.string)}
    specs["category"] = tf.TensorSpec([None], tf.int64)
    path.write_text("image,category,price\n007,3,1\n,,2\n")
    columns = module._read_items(path, specs)
    assert columns["image"].to_pylist() == ["007", ""]
    assert columns["category"].to_pylist() == [3, MISSING_INTEGER]
    # Integers that gaps made floats.
    floats = tmp_path / "items.parquet"
    pd.DataFrame({"image": ["007", "008"], "category": [3, None]}).to_parquet(floats)
    columns = module._read_items(floats, specs)
    assert columns["category"].to_pylist() == [3, MISSING_INTEGER]
    path.write_text("image,category,shelf-no\n007,3,1\n008,3,high\n")
    shelf = {"column__shelf_2d_no": tf.TensorSpec([None], tf.int64)}
    with pytest.raises(InputError, match="items.csv: column shelf-no: the model has"):
        module._read_items(path, shelf)
    path.write_text("image,category\n007,3\n008,red\n")
    with pytest.raises(InputError, match="column category: the model has int64"):
        module._read_items(path, specs)


def test_photos_of_one_key(shop, export_dir, items, maps, tmp_path, capsys):
    """The more frequent one has it, and keeps it; the other one is no image."""
    common, rare = COLLIDING[0]
    new = {common: maps[NEW[0]][::-1] + 1}
    path = write_store(tmp_path / "maps", maps | new, shop.store.cnn)
    category = shop.items.category[0]

    def write(images):
        some = pd.DataFrame({"image": images, "category": category})
        some["item_id"] = 10_000_000 + some.index
        pd.concat([items, some]).to_csv(tmp_path / "items.csv", index=False)
        return tmp_path / "items.csv"

    version = refresh(export_dir, write([rare, common, common]), path)
    warning = f"warning: items: {rare!r} is no image"
    assert warning in capsys.readouterr().out
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    (row,) = Impressions(shop.data, "test", 1).rows
    request = impressions_request([row] * 3, shop.schema, with_images=True)
    specs = signature.structured_input_signature[1]
    request["image"] = np.array([common, rare, ""], object)
    request["item_id"] = np.array([10_000_000] * 3)
    request = {k: tf.constant(v, specs[k].dtype) for k, v in request.items()}
    ctr = signature(**request)["ctr"].numpy()
    assert ctr[0] != ctr[2] and ctr[1] == ctr[2]
    # Also when it has become the more frequent one.
    assert refresh(export_dir, write([rare, rare, common]), path) is None
    assert warning in capsys.readouterr().out
    # Once the table has lost the photo, the other one takes the key.
    path = write_store(tmp_path / "others", maps | {rare: maps[NEW[1]]}, shop.store.cnn)
    refresh(export_dir, write([rare]), path, remove_missing=True)
    version = refresh(export_dir, write([rare, common]), path)
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    ctr = signature(**request)["ctr"].numpy()
    assert ctr[1] != ctr[2] and ctr[0] == ctr[2]


class KnowsSomeCategories:
    """What `refresh` asks of a version whose categories are the texts dress and 7."""

    image_columns = {
        name: tf.TensorSpec([None], tf.string) for name in ("image", "category")
    }

    def image_keys(self, columns):
        return np.array([{b"dress": 2, b"7": 3}.get(c, 1) for c in _values(columns)])


def _values(columns):
    assert set(columns["image"].numpy()) == {b"x"}
    return columns["category"].numpy()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("categories", "refused"),
    [
        ([3, 4, None], True),
        ([0.5, 4, None], True),
        ([7, 4, 4], False),
        (["3", "shoe", None], False),
        ([None, None, None], False),
    ],
)
def test_numbers_for_categories_of_text(tmp_path, suffix, categories, refused):
    version, path = KnowsSomeCategories(), tmp_path / f"items.{suffix}"
    frame = pd.DataFrame({"image": list("abc"), "category": categories})
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    columns = module._read_items(path, version.image_columns)
    if not refused:
        module._check_categories(version, path, columns)
        return
    message = "^column category: numbers, none of which the model knows.*: (3|0.5)"
    with pytest.raises(InputError, match=message):
        module._check_categories(version, path, columns)
