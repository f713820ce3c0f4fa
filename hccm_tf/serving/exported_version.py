"""An exported version as what its tables can be made anew with, without the model."""

import collections
import contextlib
import json
import shutil

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from hccm_tf.errors import InputError, first_line
from hccm_tf.serving.export import CNN
from hccm_tf.serving.items import ITEM_CHECKS, ITEM_KEYS, ITEM_VALUES
from hccm_tf.serving.representations import (
    CHECKS,
    KEYS,
    SCALES,
    VECTORS,
    encode,
    quantize_rows,
)
from hccm_tf.serving.whole import VARIABLES, damages, missing

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# Of the old variables; TensorFlow loads a version without it.
FINGERPRINT = "fingerprint.pb"
CHUNK = 1 << 17


class Version:
    """The tables of a version, and the signatures that make their rows.

    Args:
        folder: `pathlib.Path` of the version.

    Attributes:
        has_images: whether it has a table of images.
        keys: int64 `[P]`, sorted, the keys of that table, or `None`.
        checks: int64 `[P]`, see `RepresentationTable`; `None` of an older version.
        cnn: `FeatureMapStore.cnn` of the maps that the model takes, if it does.
        image_columns: name → `tf.TensorSpec`, what `image_keys` takes, if it is there.
        item_columns: likewise, what `encode_items` takes.

    Raises:
        InputError: if the version is damaged or has no table.
    """

    def __init__(self, folder):
        self._folder = folder
        self._prefix = str(folder / VARIABLES)
        with _damage_named(folder):
            if reason := missing(folder):
                raise ValueError(reason)
            self._read_variables()
        self.has_images = KEYS in self._names
        if not self.has_images and ITEM_KEYS not in self._names:
            raise InputError(
                f"export_dir={folder.parent}: version {folder.name} has no table, of "
                "images or of items, that could be refreshed"
            )
        if self.has_images and not (folder / CNN).exists():
            raise InputError(
                f"export_dir={folder.parent}: version {folder.name} does not say of "
                f"which CNN its maps are ({CNN}): export the model again"
            )
        with _damage_named(folder):
            self._load_signatures()
            if self.has_images:
                self.cnn = json.loads((folder / CNN).read_text())
        self.keys, self.checks = self.variable(KEYS), self.variable(CHECKS)
        self.image_columns, self.item_columns = (
            signature.structured_input_signature[1] if signature else {}
            for signature in (self._image_keys, self._encode_items)
        )

    def _read_variables(self):
        checkpoint = tf.train.load_checkpoint(self._prefix)
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
            checkpoint.get_tensor(OBJECT_GRAPH)
        )
        # Name in the checkpoint → type, and variable → name in the checkpoint.
        self._dtypes = checkpoint.get_variable_to_dtype_map()
        attributes = [one for node in graph.nodes for one in node.attributes]
        if len(attributes) + 1 != len(self._dtypes):
            raise ValueError("a variable has no name")
        # Of the names that the rankers of an ensemble share, none is needed here.
        self._names = {one.full_name: one.checkpoint_key for one in attributes}
        count = collections.Counter(one.full_name for one in attributes)
        self._shared = {name for name in count if count[name] > 1}

    def _load_signatures(self):
        # Their own variables only, and not the table's.
        options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=True)
        # Signatures alone do not keep their variables.
        self._loaded = tf.saved_model.load(str(self._folder), options=options)
        names = "encode_images", "image_keys", "encode_items"
        found = [self._loaded.signatures.get(name) for name in names]
        self._encode_images, self._image_keys, self._encode_items = found
        for signature in filter(None, found):
            for variable in signature.variables:
                name = variable.name.removesuffix(":0")
                if name in self._shared:
                    raise ValueError(f"two variables are called {name}")
                variable.assign(self._read(self._names[name]))

    def _read(self, name):
        """The tensor of this name in the checkpoint."""
        (tensor,) = tf.raw_ops.RestoreV2(
            prefix=self._prefix,
            tensor_names=[name],
            shape_and_slices=[""],
            dtypes=[self._dtypes[name]],
        )
        return tensor

    def variable(self, name):
        """The values of a table's variable, `None` if the version has none such."""
        if name not in self._names:
            return None
        with _damage_named(self._folder):
            return self._read(self._names[name]).numpy()

    def encode_items(self, columns):
        """Columns of items `[U]` as the table has them; columns as `item_columns`."""
        encoded = self._encode_items(**columns)
        return {name: values.numpy() for name, values in encoded.items()}

    def image_keys(self, columns):
        """Keys of images, int64 `[U]`; columns as `image_columns`."""
        return self._image_keys(**columns)["key"].numpy()

    def encode_images(self, feature_maps, rows, categories=None):
        """Rows of a table, in its type: `(vectors [N, D], scales [N] or None)`.

        Args:
            feature_maps: `ImageStore`.
            rows: int64 `[N]`, rows of the store.
            categories: `[N]` of the log's type, `None` for a model without them.
        """
        dtype = self._dtypes[self._names[VECTORS]].name
        if not len(rows):
            outputs = self._encode_images.structured_outputs
            none = np.zeros((0, outputs["representation"].shape[1]), np.float32)
            return quantize_rows(none, dtype)

        def encoder(maps, category):
            inputs = {} if categories is None else {"category": category}
            return self._encode_images(image_map=maps, **inputs)["representation"]

        told = rows if categories is None else categories
        vectors, scales = encode(encoder, feature_maps, rows, told, dtype)
        return vectors[1:], None if scales is None else scales[1:]

    def write(self, folder, changed):
        """Writes another version: this one with other tables.

        Args:
            folder: `pathlib.Path` of the other version, an empty folder.
            changed: dict of `changed_images` and `changed_items`.
        """
        names = sorted(self._dtypes)
        variables = {key: variable for variable, key in self._names.items()}
        # Their checksums are looked at before anything is written.
        with _damage_named(self._folder):
            tensors = [self._read(name) for name in names]
        for place, name in enumerate(names):
            if variables.get(name) in changed:
                tensors[place] = _merge(tensors[place], *changed[variables[name]])
        left_out = shutil.ignore_patterns(VARIABLES.parts[0], FINGERPRINT)
        shutil.copytree(self._folder, folder, ignore=left_out, dirs_exist_ok=True)
        prefix = folder / VARIABLES
        prefix.parent.mkdir()
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=tensors,
        )


def chunks(columns):
    """Arrow columns in parts, as signatures take them: dicts name → tensor.

    Args:
        columns: dict name → Arrow array.
    """
    table = pa.table(columns)
    for start in range(0, len(table), CHUNK):
        part = table.slice(start, CHUNK)
        yield {name: tf.constant(part[name].to_numpy()) for name in columns}


def changed_images(old_keys, kept, keys, checks, vectors, scales):
    """What becomes of the variables of a table of images.

    Args:
        old_keys: int64 `[P]`, sorted.
        kept: bool `[P]`, the rows of the table to keep.
        keys: int64 `[N]`, sorted, of the rows to add.
        checks: int64 `[N]`, likewise.
        vectors: of `Version.encode_images`.
        scales: likewise.

    Returns:
        dict name → `(kept, places, added)`: bool, rows to keep; int64, places of those
        to add; these.
    """
    rows = {VECTORS: vectors} | ({} if scales is None else {SCALES: scales})
    return _changed(old_keys, kept, {KEYS: keys, CHECKS: checks}, rows)


def changed_items(old_keys, kept, keys, checks, values):
    """What becomes of the variables of a table of items; see `changed_images`.

    Args:
        old_keys: int64 `[I]`, sorted.
        kept: bool `[I]`, the rows of the table to keep.
        keys: int64 `[N]`, sorted, of the rows to add.
        checks: int64 `[N]`, likewise, or `None`.
        values: name → `[N]`, of `Version.encode_items`.
    """
    of_keys = {ITEM_KEYS: keys} | ({} if checks is None else {ITEM_CHECKS: checks})
    rows = {ITEM_VALUES + name: column for name, column in values.items()}
    return _changed(old_keys, kept, of_keys, rows)


def _changed(old_keys, kept, of_keys, rows):
    """Of variables with a row for each key, and of those with a row 0 before these."""
    keys = next(iter(of_keys.values()))
    places = np.searchsorted(old_keys[kept], keys) + np.arange(len(keys))
    changed = {name: (kept, places, added) for name, added in of_keys.items()}
    with_zero = np.concatenate([[True], kept])
    return changed | {n: (with_zero, places + 1, added) for n, added in rows.items()}


@contextlib.contextmanager
def _damage_named(folder):
    try:
        yield
    except damages() as error:
        reason = first_line(error)
        raise InputError(
            f"export_dir={folder.parent}: version {folder.name} is damaged or not yet "
            f"whole; remove it, or export or copy it again: {reason}"
        ) from error


def _merge(rows, kept, places, added):
    """The rows `kept` of a variable, with further rows at `places`."""
    # In operations, because TensorFlow does not give NumPy the memory of what it has
    # loaded.
    if not kept.all():
        rows = tf.boolean_mask(rows, kept)
    rest = np.delete(np.arange(len(rows) + len(added)), places)
    indices = [tf.constant(values, tf.int32) for values in (rest, places)]
    return tf.dynamic_stitch(indices, [rows, added])
