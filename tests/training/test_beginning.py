"""What a resume compares: the options of its run, and what its folders hold."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from hccm_tf.configuration import configure
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.data.image_folder import ImageFolder
from hccm_tf.errors import InputError
from hccm_tf.run_folder import RunFolder
from hccm_tf.training.beginning import begin

OPTIONS = {"dropout": 0.1, "seed": 3, "learning_rate": 1e-2, "hidden_units": (8, 4)}


@pytest.fixture
def folders(shop, tmp_path):
    """Folders of a run, by their arguments."""
    paths = {n: tmp_path / n for n in ("data_dir", "feature_maps", "warm_start_from")}
    shutil.copytree(shop.data, paths["data_dir"])
    shutil.copytree(shop.maps, paths["feature_maps"])
    paths["warm_start_from"].mkdir()
    RunFolder(paths["warm_start_from"]).model.write_text("weights")
    return paths


def _begin(run_dir, folders, resume=True, model="hccm", told=(), **options):
    configuration = configure(
        model,
        {**OPTIONS, **options},
        run_dir=run_dir,
        resume=resume,
        **folders,
        **dict(told),
    )
    images = None
    if configuration.model.has_images:
        images = FeatureMapStore.open(folders["feature_maps"])
        if configuration.settings.shuffle_images:
            images = images.shuffled(configuration.settings.seed)
    begin(configuration, images)


@pytest.fixture
def run_dir(folders, tmp_path):
    """A run that has begun, and left a checkpoint."""
    path = tmp_path / "run"
    path.mkdir()
    _begin(path, folders, resume=False)
    RunFolder(path).checkpoints.mkdir()
    return path


def test_a_resume_may_have_more_epochs_and_folders_elsewhere(folders, run_dir):
    before = RunFolder(run_dir).beginning.read_text()
    for name, path in folders.items():
        folders[name] = path.rename(path.with_name(f"moved_{name}"))
    _begin(run_dir, folders, epochs=50)
    assert RunFolder(run_dir).beginning.read_text() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 64}, "batch_size: .* began with 512; .* Received: 64"),
        ({"seed": 4}, "seed: .* began with 3; .* Received: 4"),
        ({"learning_rate": 0.1}, "learning_rate: .* 0.01; .* Received: 0.1"),
        ({"patience": 9}, "patience: "),
        ({"hidden_units": (8,)}, r"hidden_units: .* \[8, 4\]; .* Received: \[8\]"),
        ({"shuffle_images": True}, "shuffle_images: .* Received: True"),
        ({"model": "din"}, "model: .* hccm; .* Received: din"),
        ({"told": {"strategy": "mirrored"}}, "strategy: .* one_device; "),
        ({"told": {"warm_start": "all_but_ids"}}, "warm_start: .* all; "),
    ],
)
def test_other_options_are_named(folders, run_dir, changes, message):
    with pytest.raises(InputError, match=f"^{message}"):
        _begin(run_dir, folders, **changes)


def _invert_labels(folder):
    for file in map(str, folder.glob("*-train.tfrecord-*")):
        records = []
        for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            labels = example.features.feature["label"].int64_list.value
            labels[:] = [1 - label for label in labels]
            records.append(example.SerializeToString())
        with tf.io.TFRecordWriter(file) as writer:
            for record in records:
                writer.write(record)


def _reverse_vocabulary(folder):
    path = folder / "vocabularies" / "user_id.parquet"
    keys = pq.read_table(path)["key"].to_numpy()
    pq.write_table(pa.table({"key": keys[::-1] + 1}), path)


def _extract_others(folder):
    metadata = json.loads((folder / "feature_maps.json").read_text())
    metadata["crc32"] = {name: 7 for name in metadata["crc32"]}
    (folder / "feature_maps.json").write_text(json.dumps(metadata))


def _swap_two_images(folder):
    table = pq.read_table(folder / "images.parquet").to_pandas()
    table.row = table.row[::-1].to_numpy()
    table.to_parquet(folder / "images.parquet")


def _write_other_weights(folder):
    RunFolder(folder).model.write_text("others")


@pytest.mark.parametrize(
    ("argument", "change", "what"),
    [
        ("data_dir", _invert_labels, "impressions-train.tfrecord-00000-of-"),
        ("data_dir", _reverse_vocabulary, "vocabulary of user_id"),
        ("feature_maps", _extract_others, "feature_maps-00000-of-"),
        ("feature_maps", _swap_two_images, "images.parquet"),
        ("warm_start_from", _write_other_weights, "model.keras"),
    ],
)
def test_other_data_under_the_same_path_are_named(
    folders, run_dir, argument, change, what
):
    before = RunFolder(run_dir).beginning.read_text()
    change(folders[argument])
    with pytest.raises(InputError, match=f"^{argument}=.*: {what}.* is not what"):
        _begin(run_dir, folders)
    assert RunFolder(run_dir).beginning.read_text() == before
    # A run that begins takes them.
    shutil.rmtree(RunFolder(run_dir).checkpoints)
    _begin(run_dir, folders, resume=False)
    assert RunFolder(run_dir).beginning.read_text() != before


def test_a_start_that_is_left_out_is_named(folders, run_dir):
    folders["warm_start_from"] = None
    with pytest.raises(InputError, match="^warm_start_from=None: model.keras"):
        _begin(run_dir, folders)


def test_pixels_of_another_photo_are_others(shop, tmp_path):
    names = sorted(path.name for path in shop.images.glob("*.jpg"))[:2]
    for name in names:
        shutil.copy(shop.images / name, tmp_path)
    before = ImageFolder.open(tmp_path, names, 16).checksums()
    assert ImageFolder.open(tmp_path, names, 16).checksums() == before
    shutil.copy(tmp_path / names[0], tmp_path / names[1])
    assert ImageFolder.open(tmp_path, names, 16).checksums() != before


def test_a_run_that_does_not_say_what_it_began_with(folders, run_dir):
    file = RunFolder(run_dir).beginning
    file.unlink()
    with pytest.raises(InputError, match="does not say what the run began with"):
        _begin(run_dir, folders)
    for text in ("", "[]", "{}", '{"options": 3, "contents": {}}'):
        file.write_text(text)
        with pytest.raises(InputError, match="does not say what the run began with"):
            _begin(run_dir, folders)
