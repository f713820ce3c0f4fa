"""Exports of `hccm` with a table of any size, and requests, for the benchmarks."""

import numpy as np
import tensorflow as tf

from hccm_tf.atomic import new_folder
from hccm_tf.data import ids
from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.models import ImageInput
from hccm_tf.models.hccm import HCCM
from hccm_tf.serving.export import write_saved_model
from hccm_tf.serving.representations import RepresentationTable
from hccm_tf.serving.signatures import Signatures

MAP_SHAPE = (7, 7, 96)
CATEGORIES, ITEMS = 50, 100_000
SCHEMA = Schema(
    (
        Feature("user_id", "hash", size=100_000),
        Feature("hour", "integer", size=24, frequency=1.0),
        Feature("item_id", "hash", size=ITEMS, candidate=True),
        Feature("category", "integer", size=CATEGORIES, frequency=1.0, candidate=True),
        Feature("price", "float", "float32", candidate=True),
        Feature("history_item_id", "sequence", shares="item_id"),
        Feature("history_category", "sequence", shares="category"),
    )
)


def images(numbers):
    """Names of images."""
    return tf.strings.join([tf.strings.as_string(numbers), ".jpg"])


def category_of(numbers):
    """An image's category in the log."""
    return numbers % CATEGORIES


def table(rows, dtype=np.float16, dim=128):
    """A table of the images 0 to `rows` - 1, with random vectors."""
    numbers = tf.range(rows, dtype=tf.int64)
    category = SCHEMA.index("category", category_of(numbers))
    keys = ids.pair_keys(ids.image_keys(images(numbers)), category).numpy()
    keys.sort()
    block = np.random.default_rng(0).standard_normal((min(rows + 1, 10_000), dim))
    vectors = np.resize(block.astype(dtype), (rows + 1, dim))
    vectors[0] = 0
    return RepresentationTable(keys, vectors)


def export(folder, rows):
    """Writes a version; returns `(model, folder of the version)`."""
    definition = HCCM(SCHEMA, images=ImageInput(MAP_SHAPE))
    model = definition.build()
    signatures = Signatures(definition, definition.forms(model), table(rows))
    version = folder / "1"
    with new_folder(version) as temporary:
        write_saved_model(temporary, signatures.endpoints())
    return model, version


def request(signature, batch, candidates, length, rows, seed):
    """Tensors of random ids for a signature; `candidates` is `None` for impressions."""
    rng = np.random.default_rng(seed)
    specs = signature.structured_input_signature[1]
    histories = [name for name in specs if name.startswith("history_")]
    image = {
        False: rng.integers(0, rows, (batch, candidates) if candidates else (batch,)),
        True: rng.integers(0, rows, (batch, length)),
    }
    tensors = {}
    for name, spec in specs.items():
        is_history = name in histories
        if name == "history_length":
            value = np.full(batch, length)
        elif name == "candidate_mask":
            value = np.ones((batch, candidates), bool)
        elif "image" in name:
            value = images(image[is_history]).numpy()
        elif "category" in name:
            value = category_of(image[is_history])
        elif "item_id" in name:
            value = image[is_history] % ITEMS
        elif name == "price":
            value = rng.standard_normal(image[False].shape)
        else:
            value = rng.integers(0, 24, batch)
        tensors[name] = tf.constant(value, spec.dtype)
    return tensors
