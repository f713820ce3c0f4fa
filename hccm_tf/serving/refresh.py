"""Writes the next version of an export with new items' images, without training.

    python -m hccm_tf.serving.refresh --export_dir=saved_models/hccm \
        --items=SHOP/items.csv --feature_maps=MAPS

MAPS holds the feature maps of the images that are new, and may hold all of them, as
`extract_feature_maps --extend` makes it. The version appears when it is whole, and the
server loads it as it loads an export. Rows of images that ITEMS no longer has are kept,
because users' histories still show them; --remove_missing drops them.
"""

import contextlib
import gc
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import tensorflow as tf
from absl import app, flags
from tensorflow.core.protobuf import trackable_object_graph_pb2

from hccm_tf import ids
from hccm_tf.atomic import new_folder
from hccm_tf.data.feature_maps import FeatureMapStore
from hccm_tf.errors import InputError, report_input_errors
from hccm_tf.serving.export import next_version, versions
from hccm_tf.serving.representations import KEYS, SCALES, VECTORS, encode, quantize
from tfrecords_tools.impressions import to_log_type
from tfrecords_tools.tables import read_table

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VARIABLES = pathlib.Path("variables", "variables")
# Of the old variables; TensorFlow loads a version without it.
FINGERPRINT = "fingerprint.pb"
ARROW_TYPES = {tf.string: pa.string(), tf.int64: pa.int64(), tf.float32: pa.float32()}
CHUNK = 1 << 17


def refresh(export_dir, items, feature_maps, remove_missing=False):
    """Writes `export_dir/<version>/`, the newest version with a new table of images.

    The (image, category) pairs of `items` that the newest version's table lacks, and
    that have a feature map, go through the version's own `encode_images`; the rows that
    the table has are taken over bit by bit, and everything else of the version too. An
    item whose category changed is a new pair. A new photo needs a new name, because a
    pair that the table has is not encoded again.

    Time of the CNN grows with the new pairs only; what is left reads the old version
    twice and writes the new one. Peak memory: the old and the new table, the other
    variables, and the columns of `items`.

    Args:
        export_dir: folder of the versions, `saved_models/<name>`.
        items: path of the catalogue, CSV or Parquet: `image`, empty for none, and, for
            a model with categories, `category`. Other columns are not read.
        feature_maps: path of a `FeatureMapStore` of the CNN that the model was trained
            with.
        remove_missing: whether to drop rows of pairs that `items` does not have. By
            default they are kept, because users' histories show items that are no
            longer sold, and images under the category that they had.

    Returns:
        `pathlib.Path` of the new version, or `None` if the table would stay the same.

    Raises:
        InputError: if there is no version with a table below `export_dir`, the feature
            maps do not fit its model, a column is missing or not of the model's type,
            two pairs of `items` have one key, or the table would be empty.
    """
    numbers = versions(export_dir)
    if not numbers:
        raise InputError(
            f"--export_dir={export_dir}: no version to refresh; export a model first"
        )
    old = pathlib.Path(export_dir) / str(numbers[-1])
    table = _Table(old)
    with _naming("feature_maps"):
        store = FeatureMapStore.open(feature_maps)
    model = _Model(old)
    if store.shape != model.map_shape:
        raise InputError(
            f"--feature_maps={feature_maps}: of another CNN than the model's maps "
            f"{model.map_shape}. Received: {store.shape}"
        )
    with _naming("items"):
        columns = _read_items(items, model.specs)
    kept, keys, vectors, without_map = _compare(
        model, table.keys, columns, store, remove_missing
    )
    # It has the old table in memory.
    del model
    gc.collect()
    counts = (
        f"{len(keys)} images added, {np.count_nonzero(~kept)} removed, "
        f"{np.count_nonzero(kept)} kept, {without_map} without a feature map"
    )
    if kept.all() and not len(keys):
        print(f"nothing to refresh in {old}: {counts}")
        return None
    if not kept.any() and not len(keys):
        raise InputError("--items: no image of the table would be left")
    new = next_version(export_dir)
    with new_folder(new) as folder:
        shutil.copytree(
            old,
            folder,
            ignore=shutil.ignore_patterns(VARIABLES.parts[0], FINGERPRINT),
            dirs_exist_ok=True,
        )
        table.write(folder, kept, keys, vectors)
    print(f"{counts} -> {new}")
    return new


@contextlib.contextmanager
def _naming(flag):
    """Puts a flag in front of the message of an `InputError`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"--{flag}: {error}") from error


def _damaged(version, error):
    return InputError(
        f"--export_dir={version.parent}: version {version.name} is damaged; remove it "
        f"or export again: {error}"
    )


class _Table:
    """The variables of a version and, among them, those of its table.

    Args:
        version: `pathlib.Path`.
    """

    def __init__(self, version):
        self._prefix = str(version / VARIABLES)
        try:
            checkpoint = tf.train.load_checkpoint(self._prefix)
            graph = checkpoint.get_tensor(OBJECT_GRAPH)
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            raise _damaged(version, error) from error
        self._dtypes = checkpoint.get_variable_to_dtype_map()
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(graph)
        # Variable → name in the checkpoint.
        self._names = {
            attribute.full_name: attribute.checkpoint_key
            for node in graph.nodes
            for attribute in node.attributes
            if attribute.full_name in (KEYS, VECTORS, SCALES)
        }
        if KEYS not in self._names:
            raise InputError(
                f"--export_dir={version.parent}: version {version.name} has no table "
                "of images: only models with images can be refreshed"
            )
        self.keys = checkpoint.get_tensor(self._names[KEYS])

    def write(self, version, kept, keys, vectors):
        """Writes the variables of another version.

        Args:
            version: `pathlib.Path`.
            kept: bool `[P]`, the rows to keep.
            keys: int64 `[N]`, sorted, of the rows to add.
            vectors: float32 `[N, D]`.
        """
        vectors, scales = quantize(vectors, self._dtypes[self._names[VECTORS]].name)
        places = np.searchsorted(self.keys[kept], keys) + np.arange(len(keys))
        changed = {self._names[KEYS]: (kept, places, keys)}
        for name, added in ((VECTORS, vectors), (SCALES, scales)):
            if added is not None:
                # Row 0 comes before that of the first key.
                with_zero = np.concatenate([[True], kept])
                changed[self._names[name]] = with_zero, places + 1, added
        names = sorted(self._dtypes)
        tensors = [
            self._merge(name, *changed[name]) if name in changed else self._read(name)
            for name in names
        ]
        prefix = version / VARIABLES
        prefix.parent.mkdir()
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=tensors,
        )

    def _merge(self, name, kept, places, added):
        """The rows `kept` of a variable, with further rows at `places`."""
        # In operations, because TensorFlow does not give NumPy the memory of what it
        # has loaded.
        rows = self._read(name)
        if not kept.all():
            rows = tf.boolean_mask(rows, kept)
        rest = np.delete(np.arange(len(rows) + len(added)), places)
        indices = [tf.constant(values, tf.int32) for values in (rest, places)]
        return tf.dynamic_stitch(indices, [rows, added])

    def _read(self, name):
        (tensor,) = tf.raw_ops.RestoreV2(
            prefix=self._prefix,
            tensor_names=[name],
            shape_and_slices=[""],
            dtypes=[self._dtypes[name]],
        )
        return tensor


class _Model:
    """The signatures of a version that make rows of its table.

    Args:
        version: `pathlib.Path`.
    """

    def __init__(self, version):
        try:
            # Signatures alone do not keep their variables.
            self._loaded = tf.saved_model.load(str(version))
        except (tf.errors.OpError, OSError) as error:
            raise _damaged(version, error) from error
        signatures = self._loaded.signatures
        self._encode_images = signatures["encode_images"]
        self._image_keys = signatures["image_keys"]
        self.specs = self._image_keys.structured_input_signature[1]
        self._map = self._encode_images.structured_input_signature[1]["image_map"]

    @property
    def map_shape(self):
        """`(h, w, c)` of a feature map."""
        return tuple(self._map.shape[1:])

    def keys(self, columns):
        """Keys of each item's image and of its (image, category), int64 arrays.

        Args:
            columns: name → Arrow array, of `_read_items`.
        """
        images, pairs = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for start in range(0, len(columns["image"]), CHUNK):
            inputs = {
                name: tf.constant(_to_numpy(column.slice(start, CHUNK)))
                for name, column in columns.items()
            }
            images.append(ids.image_keys(inputs["image"]).numpy())
            pairs.append(self._image_keys(**inputs)["key"].numpy())
        return np.concatenate(images), np.concatenate(pairs)

    def vectors(self, store, rows, columns):
        """float32 `[N, D]` of rows of a store, `columns` those of N items."""
        if not len(rows):
            outputs = self._encode_images.structured_outputs
            return np.zeros((0, outputs["representation"].shape[1]), np.float32)

        def encoder(maps, category):
            inputs = {"category": category} if "category" in self.specs else {}
            return self._encode_images(image_map=maps, **inputs)["representation"]

        # Without categories, the encoder does not look at them.
        categories = _to_numpy(columns.get("category", columns["image"]))
        return encode(encoder, store, rows, categories)


def _compare(model, table_keys, columns, store, remove_missing):
    """What becomes of a table.

    Args:
        model: `_Model`.
        table_keys: int64 `[P]`.
        columns: of `_read_items`.
        store: `FeatureMapStore`.
        remove_missing: as of `refresh`.

    Returns:
        `(kept, keys, vectors, without_map)`: bool `[P]`, the rows to keep; int64 `[N]`
        and float32 `[N, D]`, sorted, the rows to add; and the number of pairs that are
        not in the table and have no feature map.
    """
    images, keys = model.keys(columns)
    items = np.flatnonzero(images != ids.NO_IMAGE)
    images = images[items]
    keys, first, pair = np.unique(keys[items], return_index=True, return_inverse=True)
    # One image has different keys for different categories.
    same = np.flatnonzero(images != images[first][pair])
    if same.size:
        names = columns["image"].take(items[[first[pair[same[0]]], same[0]]])
        raise InputError(
            "--items: two (image, category) pairs share one 64-bit key: rename one "
            f"image. Received: {names.to_pylist()}"
        )
    kept = np.ones(len(table_keys), bool)
    if remove_missing:
        kept = ids.find(keys, table_keys).numpy() >= 0
    absent = ids.find(table_keys, keys).numpy() < 0
    rows = store.find(images[first]).numpy()
    new = np.flatnonzero(absent & (rows > 0))
    columns = {name: column.take(items[first[new]]) for name, column in columns.items()}
    vectors = model.vectors(store, rows[new], columns)
    return kept, keys[new], vectors, np.count_nonzero(absent) - len(new)


def _read_items(items, specs):
    """The columns of a catalogue that a signature takes; name → Arrow array."""
    strings = [name for name, spec in specs.items() if spec.dtype == tf.string]
    table = read_table(items, list(specs), strings)
    columns = {}
    for name, spec in specs.items():
        try:
            column = table[name].combine_chunks().cast(ARROW_TYPES[spec.dtype])
        except pa.ArrowException as error:
            raise InputError(
                f"{items}: column {name}: the model has {spec.dtype.name}: {error}"
            ) from error
        columns[name] = to_log_type(name, column)
    return columns


def _to_numpy(column):
    return column.to_numpy(zero_copy_only=False)


def main(argv):
    """Runs the command line."""
    with report_input_errors():
        refresh(FLAGS.export_dir, FLAGS.items, FLAGS.feature_maps, FLAGS.remove_missing)


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_string(
        "export_dir", None, "Folder of SavedModel versions.", required=True
    )
    flags.DEFINE_string("items", None, "Catalogue, CSV or Parquet.", required=True)
    flags.DEFINE_string("feature_maps", None, "Of extract_feature_maps.", required=True)
    flags.DEFINE_bool(
        "remove_missing", False, "Drop rows of images that are not in the catalogue."
    )
    app.run(main)
